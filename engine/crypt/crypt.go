// Package crypt tells which files of a store are encrypted at rest. It reads the file dictionary, which needs no key; it
// decrypts nothing.
package crypt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pingcap/kvproto/pkg/encryptionpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// FileDict is the name of the file dictionary inside the data directory.
const FileDict = "file.dict"

// Method is how a file is encrypted; the numbers are encryptionpb.EncryptionMethod's (kvproto proto/encryptionpb.proto).
type Method int32

// Methods of kvproto's EncryptionMethod.
const (
	Unknown   Method = 0
	Plaintext Method = 1
	AES128CTR Method = 2
	AES192CTR Method = 3
	AES256CTR Method = 4
	SM4CTR    Method = 5
)

// String gives the name that TiKV's configuration uses.
func (m Method) String() string {
	switch m {
	case Unknown:
		return "unknown"
	case Plaintext:
		return "plaintext"
	case AES128CTR:
		return "aes128-ctr"
	case AES192CTR:
		return "aes192-ctr"
	case AES256CTR:
		return "aes256-ctr"
	case SM4CTR:
		return "sm4-ctr"
	}
	return fmt.Sprintf("method %d", int32(m))
}

// Encrypted tells whether the bytes on disk differ from the content. A method that this tool does not know counts.
func (m Method) Encrypted() bool { return m != Unknown && m != Plaintext }

// Entry is one file of the dictionary.
type Entry struct {
	Path   string // as the server spelled it when it wrote the file: absolute, of the host and directory of that time
	KeyID  uint64 // data key in key.dict
	IV     []byte // initial counter block, 16 bytes for CTR modes
	Method Method
}

// Dict is a decoded file dictionary.
type Dict struct {
	Path    string // where it was read
	Version int    // 1 or 2
	// Torn is the number of bytes of an incomplete last record: what a crash during an append leaves. They are ignored.
	Torn int64

	files  map[string]Entry
	byTail map[string][]string // last two path elements → full names, sorted on demand
}

// File dictionary. Sources: tikv/tikv master components/encryption/src/encrypted_file/header.rs, file_dict_file.rs;
// kvproto proto/encryptionpb.proto. All integers big endian.
//
//	+---------+--------------+-----------+--------------+-----------------+---------------------------+
//	| version | reserved     | crc32     | content size | content         | records, version 2 only   |
//	| 1 byte  | 3 bytes      | 4 B, IEEE | 8 bytes      | "size" bytes    | until the end of the file |
//	+---------+--------------+-----------+--------------+-----------------+---------------------------+
//	crc32 covers the content alone.
//	version 1: content = EncryptedContent, whose plaintext content is a FileDictionary
//	version 2: content = FileDictionary (may be empty)
//
// Record:
//
//	+-----------+----------+----------+--------+----------+-----------------------+
//	| crc32     | name_len | info_len | type   | name     | FileInfo              |
//	| 4 B, IEEE | 2 bytes  | 2 bytes  | 1 byte | name_len | info_len, 0 on remove |
//	+-----------+----------+----------+--------+----------+-----------------------+
//	crc32 covers name and FileInfo; type 1 inserts, 2 removes; the later record wins.
const (
	headerSize       = 16
	recordHeaderSize = 9
	recordInsert     = 1
	recordRemove     = 2
)

// Load reads <dir>/file.dict; (nil, nil) when encryption was never on.
func Load(fs base.FS, dir string) (*Dict, error) {
	name := fs.PathJoin(dir, FileDict)
	if ok, err := base.Exists(fs, name); err != nil || !ok {
		return nil, err
	}
	b, err := base.ReadFile(fs, name)
	if err != nil {
		return nil, err
	}
	return Parse(name, b)
}

// Parse decodes a file dictionary; name is for errors only.
func Parse(name string, b []byte) (*Dict, error) {
	if len(b) < headerSize {
		return nil, base.Corruptf(name, 0, "file dictionary is %d bytes long, its header alone has %d", len(b), headerSize)
	}
	d := &Dict{Path: name, Version: int(b[0]), files: map[string]Entry{}}
	if d.Version != 1 && d.Version != 2 {
		return nil, base.Unsupportedf(name, "file dictionary has version %d; versions 1 and 2 are known", d.Version)
	}
	sum, size := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	rest := b[headerSize:]
	if size > uint64(len(rest)) {
		return nil, base.Corruptf(name, 8, "file dictionary says %d bytes of content, the file has %d", size, len(rest))
	}
	content, rest := rest[:size], rest[size:]
	if got := crc32.ChecksumIEEE(content); got != sum {
		return nil, base.Corruptf(name, 4, "file dictionary content has crc32 %08x, its header says %08x", got, sum)
	}
	if d.Version == 1 {
		if len(rest) > 0 {
			return nil, base.Corruptf(name, headerSize+int64(size), "%d bytes follow the content of a version 1 dictionary", len(rest))
		}
		var sealed encryptionpb.EncryptedContent
		if err := sealed.Unmarshal(content); err != nil {
			return nil, base.Corruptf(name, headerSize, "EncryptedContent does not decode: %v", err)
		}
		if m := sealed.Metadata["method"]; string(m) != "plaintext" {
			return nil, base.Unsupportedf(name, "file dictionary is sealed with %q; TiKV writes it as plaintext", m)
		}
		content = sealed.Content
	}
	var fd encryptionpb.FileDictionary
	if err := fd.Unmarshal(content); err != nil {
		return nil, base.Corruptf(name, headerSize, "FileDictionary does not decode: %v", err)
	}
	for file, info := range fd.Files {
		d.insert(file, info)
	}
	if err := d.replay(rest, headerSize+int64(size)); err != nil {
		return nil, err
	}
	d.index()
	return d, nil
}

var errTorn = errors.New("record is cut off")

// replay applies the records that start at offset off of the file. TiKV lines differ on a damaged last record (older
// ones refuse, newer ones drop it); for detection dropping is right: the file that it was about is younger than any
// acknowledged write.
func (d *Dict) replay(b []byte, off int64) error {
	for len(b) > 0 {
		n, err := d.record(b)
		switch {
		case errors.Is(err, errTorn):
			d.Torn = int64(len(b))
			return nil
		case err != nil:
			return base.Corruptf(d.Path, off, "%v", err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func (d *Dict) record(b []byte) (int, error) {
	if len(b) < recordHeaderSize {
		return 0, errTorn
	}
	nameLen, infoLen := int(binary.BigEndian.Uint16(b[4:])), int(binary.BigEndian.Uint16(b[6:]))
	n := recordHeaderSize + nameLen + infoLen
	if len(b) < n {
		return 0, errTorn
	}
	body := b[recordHeaderSize:n]
	if got, want := crc32.ChecksumIEEE(body), binary.BigEndian.Uint32(b); got != want {
		if len(b) == n {
			return 0, errTorn
		}
		return 0, fmt.Errorf("dictionary record has crc32 %08x, expected %08x", got, want)
	}
	file := string(body[:nameLen])
	if !utf8.ValidString(file) {
		return 0, errors.New("dictionary record has a file name that is not UTF-8")
	}
	switch b[8] {
	case recordInsert:
		var info encryptionpb.FileInfo
		if err := info.Unmarshal(body[nameLen:]); err != nil {
			return 0, fmt.Errorf("FileInfo does not decode: %w", err)
		}
		d.insert(file, &info)
	case recordRemove:
		delete(d.files, file)
	default:
		return 0, fmt.Errorf("dictionary record has type %d; 1 and 2 are known", b[8])
	}
	return n, nil
}

func (d *Dict) insert(file string, info *encryptionpb.FileInfo) {
	e := Entry{Path: file}
	if info != nil {
		e.KeyID, e.IV, e.Method = info.KeyId, slices.Clone(info.Iv), Method(info.Method)
	}
	d.files[file] = e
}

func (d *Dict) index() {
	d.byTail = make(map[string][]string, len(d.files))
	for file := range d.files {
		t := tail(file)
		d.byTail[t] = append(d.byTail[t], file)
	}
}

// tail is the directory's name and the file's: what survives when a store is moved.
func tail(file string) string {
	file = path.Clean(file)
	return path.Join(path.Base(path.Dir(file)), path.Base(file))
}

// Len is the number of files listed.
func (d *Dict) Len() int { return len(d.files) }

// Get finds a file by the exact path that the server used.
func (d *Dict) Get(file string) (Entry, bool) {
	e, ok := d.files[file]
	return e, ok
}

// Entries lists all files, sorted by path.
func (d *Dict) Entries() []Entry {
	out := make([]Entry, 0, len(d.files))
	for _, e := range d.files {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// Find tells how a file of a store that may have been moved is encrypted. The dictionary knows files by the absolute path
// of the time of writing, so the last two path elements decide, e.g. "db/000004.log". When several entries share them,
// one that is encrypted wins: reading ciphertext as plaintext is the mistake to avoid.
func (d *Dict) Find(file string) (Entry, bool) {
	if e, ok := d.files[file]; ok {
		return e, true
	}
	names := slices.Sorted(slices.Values(d.byTail[tail(file)]))
	for _, n := range names {
		if d.files[n].Method.Encrypted() {
			return d.files[n], true
		}
	}
	if len(names) > 0 {
		return d.files[names[0]], true
	}
	return Entry{}, false
}
