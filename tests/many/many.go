// Package many makes stores with very many tables, as a TiKV of some terabytes has them, out of small ones.
package many

import (
	"errors"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// linksOfOne leaves room for two copies of the store by links: ext4 allows 65,000 for one file.
const linksOfOne = 20_000

// Link gives the store in dir n more tables on L6 of the write column family: hard links of one of its own that holds nothing above ts,
// each with a range of keys of its own in the MANIFEST, behind all data of the store. Their records are nowhere near these keys: a store
// like this can be opened and rewound to ts or above, but not read in that range. The directories' entries are not made durable.
func Link(fs base.FS, dir string, ts mvcc.TS, n int) error {
	s, err := scan.Open(fs, dir, scan.Options{Mode: base.LockExclusive, NoRaft: true})
	if err != nil {
		return err
	}
	err = link(fs, s, ts, n)
	return errors.Join(err, s.Close())
}

func link(fs base.FS, s *scan.Store, ts mvcc.TS, n int) error {
	db := s.DB
	bounds, err := s.TimeBounds(scan.CFWrite)
	if err != nil {
		return err
	}
	var oldest rocks.LevelFile
	for _, f := range db.CF(scan.CFWrite).Files() {
		if b := bounds.Of(f.Number); b.Trust && b.Max <= ts {
			oldest = f
		}
	}
	if oldest.FileMeta == nil {
		return fmt.Errorf("%s has no table of the write column family without anything above %s", s.Layout.Dir, ts)
	}
	next, err := db.FreeNumber()
	if err != nil {
		return err
	}
	c := rocks.Change{LastSeq: db.LastSeq}
	content, err := base.ReadFile(fs, db.TablePath(oldest.Number))
	if err != nil {
		return err
	}
	key := func(i int) ikey.Key {
		return ikey.Key{User: mvcc.DataKey(fmt.Appendf(nil, "u%07d", i), 5), Seq: oldest.SmallestSeq, Kind: ikey.KindPut}
	}
	source := ""
	for i := range n {
		path := fs.PathJoin(db.Dir, manifest.TableName(next))
		if i%linksOfOne == 0 {
			source = path
			if err := base.WriteFileSync(fs, path, content, ""); err != nil {
				return err
			}
		} else if err := fs.Link(source, path); err != nil {
			return err
		}
		f := *oldest.FileMeta
		f.Number, f.Smallest, f.Largest = next, key(2*i), key(2*i+1)
		c.Add = append(c.Add, rocks.Added{CF: scan.CFWrite, Level: manifest.NumLevels - 1, Meta: &f})
		next++
	}
	c.NextNumber = next + 1
	after, records, err := db.Draft(c, next)
	if err != nil {
		return err
	}
	if err := manifest.Write(fs, fs.PathJoin(db.Dir, manifest.ManifestName(next)), records, db.State.Path); err != nil {
		return err
	}
	return base.WriteFileSync(fs, fs.PathJoin(db.Dir, "CURRENT"), []byte(manifest.ManifestName(after.Number)+"\n"), "")
}
