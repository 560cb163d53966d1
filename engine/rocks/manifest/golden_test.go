package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// annotator prints the bytes of a MANIFEST with what they mean.
type annotator struct {
	out strings.Builder
	pos int
}

func (a *annotator) line(b []byte, format string, args ...any) {
	meaning := fmt.Sprintf(format, args...)
	for len(b) > 14 {
		fmt.Fprintf(&a.out, "%05d  % x\n", a.pos, b[:14])
		a.pos, b = a.pos+14, b[14:]
	}
	fmt.Fprintf(&a.out, "%05d  %-43s %s\n", a.pos, fmt.Sprintf("% x", b), meaning)
	a.pos += len(b)
}

// edit walks the fields of one record with the decoder under test.
func (a *annotator) edit(t *testing.T, raw []byte) {
	t.Helper()
	if len(raw) == 0 {
		a.out.WriteString("       empty edit\n")
	}
	d := &decoder{b: raw, size: len(raw)}
	for len(d.b) > 0 {
		before, e := d.b, &Edit{}
		tag := d.v32("tag")
		if tag == tagNewFile4 {
			a.file(d, before, e)
		} else {
			d.field(e, tag)
			a.line(before[:len(before)-len(d.b)], "%s", meaning(e, tag))
		}
		if d.err != nil {
			t.Fatal(d.err)
		}
	}
}

// file prints NewFile4 field by field.
func (a *annotator) file(d *decoder, from []byte, e *Edit) {
	took := func(format string, args ...any) {
		a.line(from[:len(from)-len(d.b)], format, args...)
		from = d.b
	}
	took("NewFile4")
	took("  level %d", d.level())
	took("  number %d", d.v64(""))
	took("  size %d", d.v64(""))
	took("  smallest %s", d.key(""))
	took("  largest %s", d.key(""))
	took("  smallest sequence %d", d.v64(""))
	took("  largest sequence %d", d.v64(""))
	for d.err == nil {
		custom := d.v32("")
		if custom == customTerminate {
			took("  end of file")
			return
		}
		f := &FileMeta{}
		d.custom(e, f, custom)
		took("  %s", customMeaning(e, f, custom))
	}
}

func customMeaning(e *Edit, f *FileMeta, tag uint32) string {
	switch tag {
	case customMinLogToKeepHack:
		return fmt.Sprintf("MinLogNumberToKeep %d, hidden in the file", *e.MinLogNumberToKeep)
	case customOldestAncesterTime:
		return fmt.Sprintf("oldest ancester time %d", f.OldestAncesterTime)
	case customFileCreationTime:
		return fmt.Sprintf("file creation time %d", f.FileCreationTime)
	case customFileChecksum:
		return fmt.Sprintf("checksum %q", f.Checksum)
	case customFileChecksumFunc:
		return fmt.Sprintf("checksum function %q", f.ChecksumFunc)
	case customUniqueID:
		return fmt.Sprintf("unique id %x", f.UniqueID)
	case customEpochNumber:
		return fmt.Sprintf("epoch %d", f.Epoch)
	case customTailSize:
		return fmt.Sprintf("tail size %d", f.TailSize)
	}
	return fmt.Sprintf("custom field %d", tag)
}

func meaning(e *Edit, tag uint32) string {
	switch tag {
	case tagComparator:
		return "Comparator " + *e.Comparator
	case tagLogNumber:
		return fmt.Sprintf("LogNumber %d", *e.LogNumber)
	case tagNextFileNumber:
		return fmt.Sprintf("NextFileNumber %d", *e.NextFileNumber)
	case tagLastSequence:
		return fmt.Sprintf("LastSequence %d", *e.LastSequence)
	case tagDeletedFile:
		return fmt.Sprintf("DeletedFile level %d number %d", e.DeletedFiles[0].Level, e.DeletedFiles[0].Number)
	case tagPrevLogNumber:
		return fmt.Sprintf("PrevLogNumber %d", *e.PrevLogNumber)
	case tagMinLogToKeep:
		return fmt.Sprintf("MinLogNumberToKeep %d", *e.MinLogNumberToKeep)
	case tagColumnFamily:
		return fmt.Sprintf("ColumnFamily %d", e.CF)
	case tagColumnFamilyAdd:
		return "ColumnFamilyAdd " + *e.AddCF
	case tagMaxColumnFamily:
		return fmt.Sprintf("MaxColumnFamily %d", *e.MaxColumnFamily)
	case tagInAtomicGroup:
		return fmt.Sprintf("InAtomicGroup, %d follow", *e.AtomicRemaining)
	case tagWALAddition2:
		return fmt.Sprintf("WalAddition2 %d synced %d", e.WALAdditions[0].Number, e.WALAdditions[0].SyncedSize)
	case tagWALDeletion2:
		return fmt.Sprintf("WalDeletion2 below %d", *e.WALDeletion)
	case tagPersistTimestamps:
		return fmt.Sprintf("PersistUserTimestamps %v", *e.PersistTimestamps)
	}
	return fmt.Sprintf("tag %d", tag)
}

// annotate prints the records from number from on; each must be one physical record.
func annotate(t *testing.T, file []byte, from, count int) string {
	t.Helper()
	a := &annotator{}
	for n := 0; a.pos < len(file) && n < from+count; n++ {
		size := int(file[a.pos+4]) | int(file[a.pos+5])<<8
		head, body := file[a.pos:a.pos+7], file[a.pos+7:a.pos+7+size]
		if head[6] != 1 || a.pos+7+size > wal.BlockSize {
			t.Fatalf("record %d at %d is fragmented: take another one", n, a.pos)
		}
		if n < from {
			a.pos += 7 + size
			continue
		}
		fmt.Fprintf(&a.out, "record %d\n", n)
		a.line(head[:4], "crc")
		a.line(head[4:6], "length %d", size)
		a.line(head[6:], "type full")
		a.edit(t, body)
	}
	return a.out.String()
}

// TestGolden shows real MANIFESTs byte by byte, and the state that they make.
func TestGolden(t *testing.T) {
	datadriven.RunTest(t, "testdata/manifest.txt", func(t *testing.T, d *datadriven.TestData) string {
		var fixture, dir string
		d.ScanArgs(t, "fixture", &fixture)
		d.ScanArgs(t, "dir", &dir)
		fs := base.NewMem(fixtures.Mem(t, fixture))
		s, err := Load(fs, dir)
		if err != nil {
			return err.Error() + "\n"
		}
		if d.Cmd == "state" {
			return describe(s) + "\n"
		}
		file, err := base.ReadFile(fs, s.Path)
		if err != nil {
			t.Fatal(err)
		}
		from, count := 0, 1<<30
		if d.HasArg("from") {
			d.ScanArgs(t, "from", &from)
		}
		if d.HasArg("count") {
			d.ScanArgs(t, "count", &count)
		}
		return annotate(t, file, from, count)
	})
}
