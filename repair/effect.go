// Package repair changes stopped stores: the rewind pass, its preview, applying it with undo, and the proof afterwards.
package repair

import (
	"maps"
	"sort"

	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
)

// Effect is what a rewind to T does to the data that readers see. The logical pass computes it; the physical pass writes it.
type Effect struct {
	VersionsRemoved int64
	RowsChanged     int64 // user keys with a removed Put or Delete
	BytesRemoved    int64 // keys and values of the removed write records
	DefaultRows     int64 // default-CF rows that go, those of locks included
	FencesCleared   int64
	RawRemoved      int64   // API V2 raw entries
	Oldest, Newest  mvcc.TS // of the removed versions; 0 without any
	Tables          map[string]*TableLoss
	Histogram       histogram

	Problems []plan.Problem

	// locks is never nil; records of it come on top like those of write and deflt.
	locks *lockEdit

	// write gets records with fresh sequences on top of everything: commit records made of locks, and records of files that
	// stay as they are whose gc_fence is cleared. deflt gets the deletes of default-CF rows.
	write, deflt *rocks.Spool
	// changed are the numbers of the files of the set in which a record goes or changes.
	changed map[uint64]bool
	// fenced are those with a gc_fence above T on a record that stays.
	fenced map[uint64]bool
	// logChanged says the same of the logs.
	logChanged bool
	// bytesRead is what the pass has read of tables.
	bytesRead int64
}

// TableLoss is the part of the loss that lies in one table, or in what is no table.
type TableLoss struct {
	Name     string `json:"name"`
	Versions int64  `json:"versions"`
	Rows     int64  `json:"rows"`
	Bytes    int64  `json:"bytes"`
}

func newEffect() *Effect {
	return &Effect{Tables: map[string]*TableLoss{}, changed: map[uint64]bool{}, fenced: map[uint64]bool{}, locks: &lockEdit{}, write: &rocks.Spool{}, deflt: &rocks.Spool{}}
}

func (e *Effect) merge(o *Effect) {
	e.VersionsRemoved += o.VersionsRemoved
	e.RowsChanged += o.RowsChanged
	e.BytesRemoved += o.BytesRemoved
	e.DefaultRows += o.DefaultRows
	e.FencesCleared += o.FencesCleared
	e.RawRemoved += o.RawRemoved
	if o.Oldest != 0 && (e.Oldest == 0 || o.Oldest < e.Oldest) {
		e.Oldest = o.Oldest
	}
	e.Newest = max(e.Newest, o.Newest)
	for n, t := range o.Tables {
		m := e.table(n)
		m.Versions += t.Versions
		m.Rows += t.Rows
		m.Bytes += t.Bytes
	}
	e.Histogram.merge(o.Histogram)
	e.write.Join(o.write)
	e.deflt.Join(o.deflt)
	maps.Copy(e.changed, o.changed)
	maps.Copy(e.fenced, o.fenced)
	e.logChanged = e.logChanged || o.logChanged
}

func (e *Effect) table(name string) *TableLoss {
	t := e.Tables[name]
	if t == nil {
		t = &TableLoss{Name: name}
		e.Tables[name] = t
	}
	return t
}

// lose accounts for one removed version.
func (e *Effect) lose(ts mvcc.TS, size int64, table *TableLoss) {
	e.VersionsRemoved++
	e.BytesRemoved += size
	table.Versions++
	table.Bytes += size
	if e.Oldest == 0 || ts < e.Oldest {
		e.Oldest = ts
	}
	e.Newest = max(e.Newest, ts)
	e.Histogram.add(ts, 1)
}

// TableLosses lists the loss per table, the largest first.
func (e *Effect) TableLosses() []*TableLoss {
	out := make([]*TableLoss, 0, len(e.Tables))
	for _, t := range e.Tables {
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Versions != out[j].Versions {
			return out[i].Versions > out[j].Versions
		}
		return out[i].Name < out[j].Name
	})
	return out
}
