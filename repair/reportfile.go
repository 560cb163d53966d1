package repair

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
)

// maxReportLine bounds one line of a report, in bytes: a region with the summary of a very long log, or an answer that carries entries.
const maxReportLine = 256 << 20

// reportSuffix is the name of a report until it is whole.
const reportSuffix = ".tikv-repair.tmp"

// WriteReport creates path, lets write fill it, and compresses what it writes (zstd). The file has its name only when it is whole and on
// disk. An existing file is replaced.
func WriteReport(fs base.FS, path string, write func(io.Writer) error) (err error) {
	tmp := path + reportSuffix
	f, err := fs.Create(tmp, base.DiskWriteCategory)
	if err != nil {
		return base.IO("create", tmp, err)
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			_ = base.Unrefused(fs).Remove(tmp) // what was to be said is in err
		}
	}()
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	if err := errors.Join(write(z), z.Close()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return base.IO("sync", tmp, err)
	}
	err, f = f.Close(), nil
	if err != nil {
		return base.IO("close", tmp, err)
	}
	return base.RenameSync(fs, tmp, path)
}

// ReadReport adds the lines of a report file, compressed or not, to in.
func ReadReport(fs base.FS, path string, in *plan.Input) error {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return base.IO("open", path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return base.IO("stat", path, err)
	}
	defer base.Begin(fs, "reading "+path).Reads(st.Size()).End()
	n := 0
	bad := func(err error) error {
		var sys *os.PathError
		if errors.As(err, &sys) || errors.Is(err, base.ErrIO) {
			return base.IO("read", path, err)
		}
		return &base.Error{Class: base.ErrPlanMismatch, Op: "read report", Path: path, Offset: -1, Reason: fmt.Sprintf("line %d", n), Err: err,
			Next: "tikv-repair collect DIR -o " + path}
	}
	r, err := plainReader(f)
	if err != nil {
		return bad(err)
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxReportLine)
	for sc.Scan() {
		n++
		if err := in.Add(sc.Bytes()); err != nil {
			return bad(err)
		}
	}
	n++
	if err := sc.Err(); err != nil {
		return bad(err)
	}
	if err := in.Close(); err != nil {
		return bad(err)
	}
	return nil
}

// zstdMagic begins a zstd frame (RFC 8878, 3.1.1).
const zstdMagic = "\x28\xb5\x2f\xfd"

// plainReader decompresses what is compressed.
func plainReader(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(head) != zstdMagic {
		return b, nil
	}
	return zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
}
