// Package pb decodes the protobuf messages of etcd by hand: field by field, without generated code, so that etcd's modules stay out
// of the binary and bytes of any shape end in an error.
package pb

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrWire is the cause of every protobuf message that does not decode.
var ErrWire = errors.New("protobuf")

// message is one message being decoded.
type message struct {
	name string
	err  error
}

func (m *message) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf("%w: %s: %s", ErrWire, m.name, fmt.Sprintf(format, args...))
	}
}

// Field is one field of a message. Its methods take the value, or make the decoding fail when the field has another wire type, as
// etcd's generated code does: etcd tells newer requests from older ones by that.
type Field struct {
	N protowire.Number

	m    *message
	t    protowire.Type
	num  uint64
	data []byte
}

// Decode calls fn for each top-level field of b until the end or the first error, which has the cause ErrWire. Fields that fn does
// not look at are skipped; of several with one number fn keeps the last, as protobuf wants it.
func Decode(name string, b []byte, fn func(f Field)) error {
	m := &message{name: name}
	for len(b) > 0 && m.err == nil {
		n, t, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			m.fail("%v", protowire.ParseError(tag))
			break
		}
		f := Field{N: n, m: m, t: t}
		var size int
		switch t {
		case protowire.VarintType:
			f.num, size = protowire.ConsumeVarint(b[tag:])
		case protowire.BytesType:
			f.data, size = protowire.ConsumeBytes(b[tag:])
		default:
			size = protowire.ConsumeFieldValue(n, t, b[tag:])
		}
		if size < 0 {
			m.fail("field %d: %v", n, protowire.ParseError(size))
			break
		}
		fn(f)
		b = b[tag+size:]
	}
	return m.err
}

func (f Field) want(t protowire.Type) bool {
	if f.t != t {
		f.m.fail("field %d has wire type %d, not %d", f.N, f.t, t)
	}
	return f.t == t
}

// U64 takes an unsigned integer.
func (f Field) U64(v *uint64) {
	if f.want(protowire.VarintType) {
		*v = f.num
	}
}

// I64 takes a signed one (int64, not zigzag).
func (f Field) I64(v *int64) {
	if f.want(protowire.VarintType) {
		*v = int64(f.num)
	}
}

// Bool takes a bool.
func (f Field) Bool(v *bool) {
	if f.want(protowire.VarintType) {
		*v = f.num != 0
	}
}

// Bytes takes the content, not copied.
func (f Field) Bytes(v *[]byte) {
	if f.want(protowire.BytesType) {
		*v = f.data
	}
}

// Text takes text.
func (f Field) Text(v *string) {
	if f.want(protowire.BytesType) {
		*v = string(f.data)
	}
}

// Message decodes a nested message.
func (f Field) Message(parse func(b []byte) error) {
	if f.want(protowire.BytesType) {
		if err := parse(f.data); err != nil && f.m.err == nil {
			f.m.err = err
		}
	}
}
