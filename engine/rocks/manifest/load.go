package manifest

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// Load follows CURRENT to the MANIFEST of dir and rebuilds the state. A torn tail is dropped, as the engine does; every
// other damage is an error of class ErrCorrupt, and what TiKV never writes (another comparator, native blob files,
// user-defined timestamps, more levels or paths) one of class ErrUnsupported.
//
// Stricter than the engine: zeros between records, a length that runs past the end of the file with sound records behind it, a file number in two column families and two families of one name are
// errors as well.
// Source: tikv/rocksdb 8.10.tikv db/version_set.cc (Recover, GetCurrentManifestPath), db/version_edit_handler.cc.
func Load(fs base.FS, dir string) (*State, error) {
	path, number, err := Current(fs, dir)
	if err != nil {
		return nil, err
	}
	return LoadFile(fs, path, number)
}

// Current reads CURRENT and returns path and number of the MANIFEST that it names.
func Current(fs base.FS, dir string) (path string, number uint64, err error) {
	current := fs.PathJoin(dir, "CURRENT")
	b, err := base.ReadFile(fs, current)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", 0, base.Corruptf(current, 0, "CURRENT is missing")
		}
		return "", 0, err
	}
	name, ok := strings.CutSuffix(string(b), "\n")
	if !ok {
		return "", 0, base.Corruptf(current, int64(len(b)), "CURRENT does not end with a newline")
	}
	kind, number, ok := ParseFileName(name)
	if !ok || kind != FileManifest {
		return "", 0, base.Corruptf(current, 0, "CURRENT holds %.40q, which is no MANIFEST", name)
	}
	return fs.PathJoin(dir, name), number, nil
}

// LoadFile rebuilds the state from one MANIFEST, whether CURRENT names it or not.
func LoadFile(fs base.FS, path string, number uint64) (*State, error) {
	f, err := fs.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, base.Corruptf(path, 0, "CURRENT names this MANIFEST and it is missing")
		}
		return nil, base.IO("open", path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, base.IO("stat", path, err)
	}
	defer base.Begin(fs, "reading the MANIFEST").Reads(st.Size()).End()
	return read(f, path, number)
}

// read rebuilds the state from the bytes of a MANIFEST.
func read(r io.Reader, path string, number uint64) (*State, error) {
	s := NewState()
	s.Path, s.Number = path, number
	var group groupBuffer
	rd := wal.NewReader(r, path, 0)
	for {
		payload, off, err := rd.Next()
		var d *wal.Damage
		switch {
		case err == io.EOF:
			s.TornTail = s.TornTail || len(group.edits) > 0
			return s, s.finish(off)
		case errors.As(err, &d) && d.Torn():
			s.TornTail = true
			continue
		case d != nil:
			return nil, base.Corruptf(path, d.Offset, "MANIFEST: %s", d.Reason)
		case err != nil:
			return nil, err
		}
		raw := append([]byte(nil), payload...)
		e, err := decodeEdit(raw)
		if err != nil {
			return nil, at(err, path, off)
		}
		if err := group.add(s, e, raw); err != nil {
			return nil, at(err, path, off)
		}
	}
}

// finish sorts the levels after the last record.
func (s *State) finish(end int64) error {
	if err := s.complete(); err != nil {
		return at(err, s.Path, end)
	}
	for _, cf := range s.CFs {
		cf.arrange()
	}
	return nil
}

// at fills in where in the file an edit's error is.
func at(err error, path string, off int64) error {
	var e *base.Error
	if !errors.As(err, &e) {
		return err
	}
	n := *e
	n.Path, n.Offset = path, off
	return &n
}

// groupBuffer holds back the edits of an atomic group until it is complete. The edits of a group count down to 0.
type groupBuffer struct {
	edits     []*Edit
	records   [][]byte
	remaining uint32
}

func (g *groupBuffer) add(s *State, e *Edit, raw []byte) error {
	open := len(g.edits) > 0
	if e.AtomicRemaining == nil {
		if open {
			return s.corrupt("atomic group of which %d edits are missing", g.remaining)
		}
		if err := s.apply(e); err != nil {
			return err
		}
		s.Records = append(s.Records, raw)
		return nil
	}
	if open && *e.AtomicRemaining != g.remaining-1 {
		return s.corrupt("atomic group: %d edits remain, %d expected", *e.AtomicRemaining, g.remaining-1)
	}
	g.edits, g.records, g.remaining = append(g.edits, e), append(g.records, raw), *e.AtomicRemaining
	if g.remaining > 0 {
		return nil
	}
	for _, e := range g.edits {
		if err := s.apply(e); err != nil {
			return err
		}
	}
	s.Records = append(s.Records, g.records...)
	*g = groupBuffer{}
	return nil
}
