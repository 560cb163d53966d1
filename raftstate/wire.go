package raftstate

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// fields walks the top-level fields of a message. value is the payload of a length-delimited field; num the payload of a
// varint or fixed field; raw the whole field with its tag.
func fields(msg []byte, fn func(n protowire.Number, t protowire.Type, value []byte, num uint64, raw []byte) error) error {
	for len(msg) > 0 {
		n, t, tag := protowire.ConsumeTag(msg)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		var value []byte
		var num uint64
		var size int
		switch t {
		case protowire.VarintType:
			num, size = protowire.ConsumeVarint(msg[tag:])
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(msg[tag:])
		default:
			size = protowire.ConsumeFieldValue(n, t, msg[tag:])
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := fn(n, t, value, num, msg[:tag+size]); err != nil {
			return err
		}
		msg = msg[tag+size:]
	}
	return nil
}

// setVarint returns msg with the varint field at path set to v; path walks down through nested messages. Every other byte
// stays: unknown fields, their order, overlong varints. An absent field is added where its number belongs; v = 0 removes
// the field, as proto3 writes it. A field that occurs more than once (legal: the last one wins) is set in each place.
func setVarint(msg []byte, path []protowire.Number, v uint64) ([]byte, error) {
	want := path[0]
	out := make([]byte, 0, len(msg)+20)
	found := false
	insertAt := -1
	err := fields(msg, func(n protowire.Number, t protowire.Type, value []byte, _ uint64, raw []byte) error {
		if n > want && insertAt < 0 {
			insertAt = len(out)
		}
		switch {
		case n == want && len(path) == 1 && t == protowire.VarintType:
			found = true
			if v != 0 {
				_, _, tag := protowire.ConsumeTag(raw)
				out = protowire.AppendVarint(append(out, raw[:tag]...), v)
			}
		case n == want && len(path) > 1 && t == protowire.BytesType:
			found = true
			inner, err := setVarint(value, path[1:], v)
			if err != nil {
				return err
			}
			_, _, tag := protowire.ConsumeTag(raw)
			out = protowire.AppendBytes(append(out, raw[:tag]...), inner)
		default:
			out = append(out, raw...)
		}
		return nil
	})
	if err != nil || found || v == 0 {
		return out, err
	}
	var field []byte
	if len(path) == 1 {
		field = protowire.AppendVarint(protowire.AppendTag(nil, want, protowire.VarintType), v)
	} else {
		inner, err := setVarint(nil, path[1:], v)
		if err != nil {
			return nil, err
		}
		field = protowire.AppendBytes(protowire.AppendTag(nil, want, protowire.BytesType), inner)
	}
	if insertAt < 0 {
		return append(out, field...), nil
	}
	tail := append([]byte(nil), out[insertAt:]...)
	return append(append(out[:insertAt], field...), tail...), nil
}
