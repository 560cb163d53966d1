package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Snapshot is one region snapshot in snap/: what its metadata names, and what lies there.
type Snapshot struct {
	Key      raftstate.SnapshotKey
	Received bool                    // false: made here for another store
	Path     string                  // of the metadata, there or not
	Meta     *raftstate.SnapshotMeta // nil: missing, or it does not read; Problem says so
	Problem  string                  // why Meta is nil
	Files    []string                // names of the data files that are there, sorted; not those that are being written or ingested
	Bytes    int64                   // size of all of them

	s *Store
}

// maxSnapshotMeta bounds, in bytes, the metadata file that is read: three families of at most 1,000 files, some 20 bytes each.
const maxSnapshotMeta = 1 << 20

// listDir lists a directory in order; one that does not exist is empty.
func listDir(fs base.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(names)
	return names, base.IO("list", dir, err)
}

// Snapshots lists the snapshots of snap/ by key, received ones after those made here. Data files without metadata are one as well: TiKV takes
// a snapshot for absent without its metadata.
func (s *Store) Snapshots() ([]*Snapshot, error) {
	names, err := listDir(s.FS, s.Layout.SnapDir)
	if err != nil {
		return nil, err
	}
	type id struct {
		key      raftstate.SnapshotKey
		received bool
	}
	byID := map[id]*Snapshot{}
	var out []*Snapshot
	for _, name := range names {
		n, ok := raftstate.ParseSnapshotName(name)
		if !ok || n.Suffix != "" {
			continue
		}
		at := id{n.Key, n.Received}
		sn := byID[at]
		if sn == nil {
			meta := raftstate.SnapshotName{Key: n.Key, Received: n.Received}
			sn = &Snapshot{Key: n.Key, Received: n.Received, Path: s.FS.PathJoin(s.Layout.SnapDir, meta.String()), Problem: "its metadata file is missing", s: s}
			byID[at] = sn
			out = append(out, sn)
		}
		if n.CF == "" {
			sn.readMeta()
			continue
		}
		sn.Files = append(sn.Files, name)
		if st, err := s.FS.Stat(s.FS.PathJoin(s.Layout.SnapDir, name)); err == nil {
			sn.Bytes += st.Size()
		}
	}
	slices.SortStableFunc(out, func(a, b *Snapshot) int {
		return cmp.Or(cmp.Compare(a.Key.Region, b.Key.Region), cmp.Compare(a.Key.Index, b.Key.Index), cmp.Compare(a.Key.Term, b.Key.Term))
	})
	return out, nil
}

func (sn *Snapshot) readMeta() {
	fs := sn.s.FS
	st, err := fs.Stat(sn.Path)
	var b []byte
	switch {
	case err != nil:
	case st.Size() > maxSnapshotMeta:
		err = fmt.Errorf("%d bytes are too much for a SnapshotMeta", st.Size())
	default:
		b, err = base.ReadFile(fs, sn.Path)
	}
	if err == nil {
		var m raftstate.SnapshotMeta
		if m, err = raftstate.ParseSnapshotMeta(b); err == nil {
			sn.Meta, sn.Problem = &m, ""
			return
		}
	}
	sn.Problem = "its metadata does not read: " + err.Error()
}

// FileName is the name of a data file.
func (sn *Snapshot) FileName(f raftstate.SnapshotFile) string {
	return raftstate.SnapshotName{Key: sn.Key, Received: sn.Received, CF: f.CF, Part: f.Part}.String()
}

// Incomplete says why TiKV could not take the snapshot in; "" when it is whole. With contents the checksums of the files are compared, and
// their bytes are added to done; without, only their sizes. The error is an interruption and nothing else.
func (sn *Snapshot) Incomplete(ctx context.Context, contents bool, done func(int64)) (string, error) {
	if sn.Meta == nil {
		return sn.Problem, nil
	}
	fs := sn.s.FS
	for _, f := range sn.Meta.Files {
		if f.Size == 0 {
			continue
		}
		name := sn.FileName(f)
		path := fs.PathJoin(sn.s.Layout.SnapDir, name)
		st, err := fs.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return name + " is missing", nil
		case err != nil:
			return fmt.Sprintf("%s cannot be read: %v", name, err), nil
		case uint64(st.Size()) != f.Size:
			return fmt.Sprintf("%s has %d bytes, its metadata says %d", name, st.Size(), f.Size), nil
		case !contents:
			continue
		}
		sum, err := crcOf(ctx, fs, path, -1, done)
		if err == nil && sum != f.Checksum && f.CF != CFLock {
			// An ingest that a crash interrupted may have left its sequence number in the file; TiKV takes it out again.
			if at, ok := globalSeqOffset(fs, path, f.CF); ok {
				sum, err = crcOf(ctx, fs, path, at, nil)
			}
		}
		switch {
		case isInterrupted(err):
			return "", err
		case err != nil:
			return fmt.Sprintf("%s cannot be read: %v", name, err), nil
		case sum != f.Checksum:
			return fmt.Sprintf("%s has the checksum %08X, its metadata says %08X", name, sum, f.Checksum), nil
		}
	}
	return "", nil
}

// snapshotIncomplete says why the snapshot that a region in state Applying needs could not be taken in, by the sizes of its files.
func (s *Store) snapshotIncomplete(r Region) (string, error) {
	all, err := s.Snapshots()
	if err != nil {
		return "", err
	}
	key := raftstate.AppliedSnapshot(r.ID, r.Apply)
	for _, sn := range all {
		if sn.Received && sn.Key == key {
			return sn.Incomplete(context.Background(), false, nil)
		}
	}
	return "there is no rev_" + key.String() + ".meta in snap/", nil
}

// crcBuffer is how much of a file is read at once.
const crcBuffer = 256 << 10

// crcOf is the CRC-32 (IEEE) of a file, with the 8 bytes at zero, when that is not negative, taken for 0.
func crcOf(ctx context.Context, fs base.FS, path string, zero int64, done func(int64)) (uint32, error) {
	f, err := fs.Open(path)
	if err != nil {
		return 0, base.IO("open", path, err)
	}
	defer f.Close()
	h := crc32.NewIEEE()
	if zero >= 0 {
		h = &zeroing{Hash32: h, at: zero}
	}
	buf := make([]byte, crcBuffer)
	for {
		if err := interrupted(ctx); err != nil {
			return 0, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if done != nil {
			done(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			return h.Sum32(), nil
		case err != nil:
			return 0, base.IO("read", path, err)
		case n == 0:
			return 0, base.IO("read", path, io.ErrNoProgress)
		}
	}
}

// zeroing hides 8 bytes from a checksum; it changes the buffer that it is given.
type zeroing struct {
	hash.Hash32
	at, pos int64
}

func (z *zeroing) Write(b []byte) (int, error) {
	from, to := max(z.at-z.pos, 0), min(z.at+8-z.pos, int64(len(b)))
	if from < to {
		clear(b[from:to])
	}
	z.pos += int64(len(b))
	return z.Hash32.Write(b)
}

// globalSeqOffset is where a table has its global sequence number.
func globalSeqOffset(fs base.FS, path, cf string) (int64, bool) {
	r, err := sst.Open(fs, path, sst.ReaderOptions{CF: cf, LargestSeq: ikey.MaxSeq})
	if err != nil {
		return 0, false
	}
	defer r.Close()
	return r.GlobalSeqOffset()
}

// ImportFile is one file of import/ that waits to be ingested.
type ImportFile struct {
	raftstate.ImportName
	File  string // base name
	Path  string
	Bytes int64
}

// ImportFiles lists the tables of import/ by name. Files of other names are nothing that TiKV would take in.
func (s *Store) ImportFiles() ([]ImportFile, error) {
	names, err := listDir(s.FS, s.Layout.ImportDir)
	if err != nil {
		return nil, err
	}
	var out []ImportFile
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		n, ok := raftstate.ParseImportName(name)
		if !ok {
			continue
		}
		f := ImportFile{ImportName: n, File: name, Path: s.FS.PathJoin(s.Layout.ImportDir, name)}
		if st, err := s.FS.Stat(f.Path); err == nil {
			f.Bytes = st.Size()
		}
		out = append(out, f)
	}
	return out, nil
}
