package sst

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
)

// The values were taken from tables that RocksDB wrote: "hello" and the type byte of an uncompressed and of an LZ4 block.
func TestChecksumVectors(t *testing.T) {
	for _, c := range []struct {
		typ  ChecksumType
		last byte
		want uint32
	}{
		{ChecksumNone, 0, 0}, {ChecksumCRC32C, 0, 0x838fa897}, {ChecksumCRC32C, 4, 0x71b61d62}, {ChecksumXXH32, 0, 0x76c3f8e8},
		{ChecksumXXH32, 4, 0x86d03457}, {ChecksumXXH64, 0, 0x2fec4e26}, {ChecksumXXH64, 4, 0x76de3e36},
		{ChecksumXXH3, 0, 0x5c62dcfd}, {ChecksumXXH3, 4, 0xf220d399},
	} {
		got := checksum(c.typ, append([]byte("hello"), c.last))
		if got != c.want {
			t.Errorf("%v, type byte %d: %08x, want %08x", c.typ, c.last, got, c.want)
		}
	}
	// Test vectors of the xxHash specification, seed 0.
	for in, want := range map[string]uint32{"": 0x02cc5d05, "a": 0x550d7456, "abc": 0x32d153ff, "Nobody inspects the spammish repetition": 0xe2293b2f} {
		if got := xxh32([]byte(in)); got != want {
			t.Errorf("XXH32(%q) is %08x, want %08x", in, got, want)
		}
	}
}

func TestBloomHashVectors(t *testing.T) {
	for in, want := range map[string]uint32{"k1": 0x78080bbf, "key0000": 0x11711b4e} {
		if got := bloomHash([]byte(in)); got != want {
			t.Errorf("%q: %08x, want %08x", in, got, want)
		}
	}
}

// TestDecompress decodes each compression in the form of old and of new footers.
func TestDecompress(t *testing.T) {
	plain := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog. "), 200)
	var deflated bytes.Buffer
	fw, err := flate.NewWriter(&deflated, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fw.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := fw.Close(); err != nil {
		t.Fatal(err)
	}
	sized := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(plain))), b...) }
	type form struct {
		code    byte
		version uint32
		stored  []byte
		want    []byte
	}
	forms := []form{
		{CompressionNone, 2, plain, plain},
		{CompressionZlib, 2, sized(deflated.Bytes()), plain},
		{CompressionZlib, 1, deflated.Bytes(), plain},
	}
	// bzip2 -9 of "hello\n".
	bz, err := hex.DecodeString("425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2")
	if err != nil {
		t.Fatal(err)
	}
	forms = append(forms, form{CompressionBZip2, 1, bz, []byte("hello\n")}, form{CompressionBZip2, 2, append([]byte{6}, bz...), []byte("hello\n")})
	for _, code := range []byte{CompressionSnappy, CompressionLZ4, CompressionLZ4HC, CompressionZSTD} {
		c := compressor{code: code}
		out, got, err := c.compress(plain)
		if err != nil || got != code {
			t.Fatalf("%s: %v, stored as type %d", CompressionName(code), err, got)
		}
		forms = append(forms, form{code, 2, bytes.Clone(out), plain})
		if code == CompressionLZ4 || code == CompressionLZ4HC {
			_, n := binary.Uvarint(out)
			old := binary.LittleEndian.AppendUint64(nil, uint64(len(plain)))
			forms = append(forms, form{code, 1, append(old, out[n:]...), plain})
		} else {
			forms = append(forms, form{code, 1, bytes.Clone(out), plain})
		}
	}
	for _, f := range forms {
		t.Run(fmt.Sprintf("%s version %d", CompressionName(f.code), f.version), func(t *testing.T) {
			for _, dst := range [][]byte{nil, make([]byte, 3), make([]byte, 2*len(plain))} {
				got, err := decompress(f.code, f.version, f.stored, dst)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, f.want) {
					t.Fatalf("%d bytes, want %d", len(got), len(f.want))
				}
			}
			if f.code == CompressionNone {
				return
			}
			for n := range f.stored {
				if got, err := decompress(f.code, f.version, f.stored[:n], nil); err == nil && !bytes.Equal(got, f.want) {
					t.Fatalf("cut to %d bytes: other content without an error", n)
				}
			}
		})
	}
}

// A block that hardly shrinks is stored as it is.
func TestCompressionThreshold(t *testing.T) {
	noise := make([]byte, 4096)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	for _, code := range []byte{CompressionSnappy, CompressionLZ4, CompressionLZ4HC, CompressionZSTD} {
		c := compressor{code: code}
		for _, zeros := range []int{0, 256, 2048} {
			in := append(bytes.Clone(noise), make([]byte, zeros)...)
			out, got, err := c.compress(in)
			if err != nil {
				t.Fatal(err)
			}
			if want := zeros == 2048; (got == code) != want {
				t.Errorf("%s of noise and %d zeros is stored as %s, %d bytes", CompressionName(code), zeros, CompressionName(got), len(out))
			}
		}
	}
}
