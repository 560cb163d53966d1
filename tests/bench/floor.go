package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// floor is the least that a rewind could cost: it reads as many stored bytes of tables as ours has read, those with something above T
// first, checks and decompresses them, and compresses, checksums, writes and syncs until as many bytes are written as ours has written: of
// the deep levels first, because what lies on top is not compressed, and goes as a whole more often than not.
// No record is looked at.
func floor(dir string, t mvcc.TS, read, write int64, threads int) error {
	s, err := scan.Open(base.NewOS(), dir, scan.Options{Mode: base.LockShared})
	if err != nil {
		return err
	}
	defer s.Close()
	out := filepath.Join(dir, "floor")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var deep, first, rest []func(*coder) error
	for _, name := range s.DB.Names() {
		cf := s.DB.CF(name)
		for _, f := range cf.Files() {
			r, done, err := cf.Table(f.FileMeta)
			if err != nil {
				return err
			}
			_, top, trust := mvcc.PropTS(r.Props().All, 0)
			path, blocks := r.Path(), r.BlockBounds()
			if err := done(); err != nil {
				return err
			}
			table := func(c *coder) error { return c.table(path, blocks, out) }
			switch above := name == scan.CFWrite && (!trust || top > t); {
			case above && f.Level > 0:
				deep = append(deep, table)
			case above:
				first = append(first, table)
			default:
				rest = append(rest, table)
			}
		}
	}
	var left, toWrite atomic.Int64
	left.Store(read)
	toWrite.Store(write)
	var g errgroup.Group
	next := make(chan func(*coder) error)
	for range threads {
		c, err := newCoder(&left, &toWrite)
		if err != nil {
			return err
		}
		g.Go(func() error {
			for f := range next {
				if err := f(c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, f := range slices.Concat(deep, first, rest) {
		next <- f
	}
	close(next)
	if err := g.Wait(); err != nil {
		return err
	}
	d, err := os.Open(out)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// verifyFloor is the least that a check of all checksums could cost: every data block of every table read in large pieces, its checksum
// computed, and decompressed. Nothing else is done: no other blocks, no order, no error that names a place. With open
// it ends before that: opening replays the logs, which all sides do.
func verifyFloor(dir string, open bool, threads int) error {
	s, err := scan.Open(base.NewOS(), dir, scan.Options{Mode: base.LockShared})
	if err != nil {
		return err
	}
	defer s.Close()
	if open {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(threads)
	coders := make(chan *coder, threads)
	for range threads {
		c, err := newCoder(nil, nil)
		if err != nil {
			return err
		}
		coders <- c
	}
	began := time.Now()
	var total atomic.Int64
	for _, name := range s.DB.Names() {
		cf := s.DB.CF(name)
		for _, f := range cf.Files() {
			g.Go(func() error {
				r, done, err := cf.Table(f.FileMeta)
				if err != nil {
					return err
				}
				path, blocks := r.Path(), r.BlockBounds()
				if err := done(); err != nil {
					return err
				}
				c := <-coders
				defer func() { coders <- c }()
				n, err := c.verify(path, blocks)
				total.Add(n)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(scan.Verified{Bytes: total.Load(), Seconds: time.Since(began).Seconds()})
}

// piece is how much is read at once.
const piece = 256 << 10

// verify checks and decompresses blocks that lie one behind the other.
func (c *coder) verify(path string, blocks []sst.Block) (n int64, err error) {
	in, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	for len(blocks) > 0 {
		k, end := 1, blocks[0].Offset+blocks[0].Size
		for k < len(blocks) && blocks[k].Offset == end && end+blocks[k].Size <= blocks[0].Offset+piece {
			end += blocks[k].Size
			k++
		}
		size := end - blocks[0].Offset
		if uint64(cap(c.raw)) < size {
			c.raw = make([]byte, max(size, piece))
		}
		raw := c.raw[:size]
		if _, err := in.ReadAt(raw, int64(blocks[0].Offset)); err != nil {
			return n, err
		}
		for _, b := range blocks[:k] {
			if _, err := c.block(raw[:b.Size]); err != nil {
				return n, fmt.Errorf("%s at %d: %w", path, b.Offset, err)
			}
			raw = raw[b.Size:]
		}
		n += int64(size)
		blocks = blocks[k:]
	}
	return n, nil
}

// block verifies a stored block and decompresses it.
func (c *coder) block(raw []byte) ([]byte, error) {
	n := len(raw)
	sum := crc32.Checksum(raw[:n-4], castagnoli)
	if masked := (sum>>15 | sum<<17) + 0xa282ead8; masked != binary.LittleEndian.Uint32(raw[n-4:]) {
		return nil, errors.New("checksum")
	}
	return c.decode(raw[n-5], raw[:n-5])
}

// coder is one thread with its codecs and buffers.
type coder struct {
	left, toWrite *atomic.Int64
	dec           *zstd.Decoder
	enc           *zstd.Encoder
	lz            lz4.Compressor
	raw, plain    []byte
	packed, out   []byte
}

func newCoder(left, toWrite *atomic.Int64) (*coder, error) {
	c := &coder{left: left, toWrite: toWrite}
	var err error
	if c.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
		return nil, err
	}
	c.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(sst.ZSTDLevel), zstd.WithEncoderCRC(false))
	return c, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *coder) table(path string, blocks []sst.Block, outDir string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var file *os.File
	for _, b := range blocks {
		if c.left.Add(-int64(b.Size)) < 0 {
			break
		}
		if uint64(cap(c.raw)) < b.Size {
			c.raw = make([]byte, b.Size*2)
		}
		raw := c.raw[:b.Size]
		if _, err := in.ReadAt(raw, int64(b.Offset)); err != nil {
			return err
		}
		code := raw[b.Size-5]
		plain, err := c.block(raw)
		if err != nil {
			return fmt.Errorf("%s at %d: %w", path, b.Offset, err)
		}
		if c.toWrite.Load() <= 0 {
			continue
		}
		if file == nil {
			if file, err = os.Create(filepath.Join(outDir, filepath.Base(path))); err != nil {
				return err
			}
		}
		packed, err := c.encode(code, plain)
		if err != nil {
			return err
		}
		start := len(c.out)
		c.out = append(append(c.out, packed...), code)
		c.out = binary.LittleEndian.AppendUint32(c.out, crc32.Checksum(c.out[start:], castagnoli))
		if len(c.out) >= 256<<10 {
			if err := c.flush(file); err != nil {
				return err
			}
		}
	}
	if file == nil {
		return nil
	}
	if err := c.flush(file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

func (c *coder) flush(f *os.File) error {
	c.toWrite.Add(-int64(len(c.out)))
	_, err := f.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *coder) decode(code byte, body []byte) ([]byte, error) {
	if code == sst.CompressionNone {
		return body, nil
	}
	size, n := binary.Uvarint(body)
	if n <= 0 {
		return nil, fmt.Errorf("no size before a compressed block")
	}
	if uint64(cap(c.plain)) < size {
		c.plain = make([]byte, 2*size)
	}
	if code == sst.CompressionZSTD {
		return c.dec.DecodeAll(body[n:], c.plain[:0])
	}
	m, err := lz4.UncompressBlock(body[n:], c.plain[:size])
	return c.plain[:m], err
}

func (c *coder) encode(code byte, plain []byte) ([]byte, error) {
	if need := lz4.CompressBlockBound(len(plain)) + 10; cap(c.packed) < need {
		c.packed = make([]byte, 2*need)
	}
	head := binary.AppendUvarint(c.packed[:0], uint64(len(plain)))
	switch code {
	case sst.CompressionZSTD:
		return c.enc.EncodeAll(plain, head), nil
	case sst.CompressionLZ4:
		n, err := c.lz.CompressBlock(plain, c.packed[len(head):cap(c.packed)])
		return c.packed[:len(head)+n], err
	}
	return plain, nil
}
