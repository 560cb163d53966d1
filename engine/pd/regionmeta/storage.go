package regionmeta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// maxCurrent bounds CURRENT: the name of a MANIFEST and a line feed.
const maxCurrent = 64

// errReadOnly answers every call that would write. goleveldb makes none on a database that is open read-only; were it to make
// one, nothing would be written.
var errReadOnly = errors.New("region-meta is read only")

// readOnly is goleveldb's storage over the seam. It creates nothing, not even the LOCK and LOG that goleveldb's own storage
// makes: the directory may be the last copy, or on a read-only mount.
type readOnly struct {
	fs  base.FS
	dir string

	mu sync.Mutex
	// dropped are the sentences in which goleveldb says what it skips.
	dropped []string
}

type unlocked struct{}

func (unlocked) Unlock() {}

// Lock takes nothing: the caller holds the locks of the whole PD directory.
func (s *readOnly) Lock() (storage.Locker, error) { return unlocked{}, nil }

// lossMarks are the beginnings of goleveldb's log lines about skipped data (leveldb/session_util.go dropper.Drop, leveldb/db.go
// recoverJournalRO, leveldb/session.go recover).
var lossMarks = []string{"journal@drop ", "journal error: ", "manifest error: "}

func (s *readOnly) Log(str string) {
	for _, m := range lossMarks {
		if strings.HasPrefix(str, m) {
			s.mu.Lock()
			s.dropped = append(s.dropped, str)
			s.mu.Unlock()
		}
	}
}

func (s *readOnly) losses() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.dropped...)
}

// GetMeta reads CURRENT.
//
//	+----------------------+------+
//	| MANIFEST-%06d (text) | 0x0A |
//	+----------------------+------+
//
// Source: syndtr/goleveldb leveldb/storage/file_storage.go (GetMeta). CURRENT.<n> and CURRENT.bak are leftovers of an interrupted
// switch; goleveldb falls back to them, and so do we.
func (s *readOnly) GetMeta() (storage.FileDesc, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return storage.FileDesc{}, err
	}
	candidates := []string{"CURRENT"}
	for _, n := range names {
		if strings.HasPrefix(n, "CURRENT.") {
			candidates = append(candidates, n)
		}
	}
	first := error(os.ErrNotExist)
	for _, name := range candidates {
		fd, err := s.current(name)
		if err == nil {
			return fd, nil
		}
		if name == "CURRENT" {
			first = err
		}
	}
	return storage.FileDesc{}, first
}

func (s *readOnly) current(name string) (storage.FileDesc, error) {
	path := s.fs.PathJoin(s.dir, name)
	st, err := s.fs.Stat(path)
	if err != nil {
		return storage.FileDesc{}, err
	}
	if st.Size() > maxCurrent {
		return storage.FileDesc{}, base.Corruptf(path, 0, "%d bytes cannot be the name of a MANIFEST", st.Size())
	}
	b, err := base.ReadFile(s.fs, path)
	if err != nil {
		return storage.FileDesc{}, err
	}
	text, ended := bytes.CutSuffix(b, []byte("\n"))
	fd, ok := parseName(string(text))
	if !ended || !ok || fd.Type != storage.TypeManifest {
		return storage.FileDesc{}, base.Corruptf(path, 0, "%q is not the name of a MANIFEST and a line feed", b)
	}
	if _, err := s.fs.Stat(s.fs.PathJoin(s.dir, string(text))); err != nil {
		return storage.FileDesc{}, err
	}
	return fd, nil
}

// parseName reads a file name: MANIFEST-%06d, %06d.log, %06d.ldb (.sst in databases of old), %06d.tmp.
func parseName(name string) (storage.FileDesc, bool) {
	var fd storage.FileDesc
	digits := ""
	if rest, ok := strings.CutPrefix(name, "MANIFEST-"); ok {
		fd.Type, digits = storage.TypeManifest, rest
	} else {
		num, ext, ok := strings.Cut(name, ".")
		types := map[string]storage.FileType{"log": storage.TypeJournal, "ldb": storage.TypeTable, "sst": storage.TypeTable, "tmp": storage.TypeTemp}
		if fd.Type = types[ext]; !ok || fd.Type == 0 {
			return fd, false
		}
		digits = num
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	fd.Num = int64(n)
	return fd, err == nil
}

func (s *readOnly) List(ft storage.FileType) ([]storage.FileDesc, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, err
	}
	var out []storage.FileDesc
	for _, n := range names {
		if fd, ok := parseName(n); ok && fd.Type&ft != 0 {
			out = append(out, fd)
		}
	}
	return out, nil
}

func (s *readOnly) path(fd storage.FileDesc) string {
	p := s.fs.PathJoin(s.dir, fd.String())
	if fd.Type == storage.TypeTable {
		if _, err := s.fs.Stat(p); errors.Is(err, os.ErrNotExist) {
			return s.fs.PathJoin(s.dir, fmt.Sprintf("%06d.sst", fd.Num))
		}
	}
	return p
}

// Open opens a file for reading; a table only when its footer stays inside the file, a MANIFEST when its records decode.
func (s *readOnly) Open(fd storage.FileDesc) (storage.Reader, error) {
	path := s.path(fd)
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && fd.Type == storage.TypeTable {
		err = checkFooter(path, f, st.Size())
	}
	if err == nil && fd.Type == storage.TypeManifest {
		err = checkManifest(path, f, st.Size())
	}
	if err == nil && fd.Type == storage.TypeJournal {
		err = s.checkEnd(path, f, st.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &file{File: f, r: io.NewSectionReader(f, 0, st.Size())}, nil
}

// checkEnd notes a log that ends inside a header: goleveldb says nothing about it, not even when it is strict.
func (s *readOnly) checkEnd(path string, f io.ReaderAt, size int64) error {
	at, err := tornHeader(f, size)
	if err == nil && at >= 0 {
		s.mu.Lock()
		s.dropped = append(s.dropped, fmt.Sprintf("%s ends inside a record at offset %d, which is dropped", path, at))
		s.mu.Unlock()
	}
	return base.IO("read", path, err)
}

// file adds what pebble's files lack: Seek, and a position of its own.
type file struct {
	vfs.File
	r *io.SectionReader
}

func (f *file) Read(p []byte) (int, error)                { return f.r.Read(p) }
func (f *file) Seek(off int64, whence int) (int64, error) { return f.r.Seek(off, whence) }

func (*readOnly) SetMeta(storage.FileDesc) error                  { return errReadOnly }
func (*readOnly) Create(storage.FileDesc) (storage.Writer, error) { return nil, errReadOnly }
func (*readOnly) Remove(storage.FileDesc) error                   { return errReadOnly }
func (*readOnly) Rename(storage.FileDesc, storage.FileDesc) error { return errReadOnly }
func (*readOnly) Close() error                                    { return nil }
