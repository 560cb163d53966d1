package scan

import "github.com/tikv-repair/tikv-repair/engine/rocks"

// cursor is a visible view that knows whether it stands on a record. It only goes forward.
type cursor struct {
	*rocks.Stream
	ok bool
}

func (s *Store) cursor(cf string, lower, upper []byte, watch rocks.Watch) (*cursor, error) {
	v, err := s.DB.CF(cf).NewStream(lower, upper, watch)
	if err != nil {
		return nil, err
	}
	return &cursor{Stream: v}, nil
}

func (c *cursor) Next() bool             { c.ok = c.Stream.Next(); return c.ok }
func (c *cursor) SeekGE(key []byte) bool { c.ok = c.Stream.SeekGE(key); return c.ok }
func (c *cursor) Skip(to int) bool       { c.ok = c.Stream.Skip(to); return c.ok }
