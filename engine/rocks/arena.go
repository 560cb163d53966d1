package rocks

// arena keeps bytes in chunks: one slice that grows would be copied again and again, and be there twice each time.
type arena struct {
	chunks     [][]byte // the last one is filled
	spare      [][]byte // empty ones
	used, size int64    // bytes in chunks, and what all chunks take
}

// place is where something lies: the chunk, and in the low half the offset.
type place uint64

const (
	firstChunk   = 4 << 10
	largestChunk = 1 << 20
)

// add keeps a and b, one after the other.
func (m *arena) add(a, b []byte) place {
	n := len(a) + len(b)
	last := len(m.chunks) - 1
	if last < 0 || cap(m.chunks[last])-len(m.chunks[last]) < n {
		m.grow(n)
		last++
	}
	c := m.chunks[last]
	at := place(last)<<32 | place(len(c))
	m.chunks[last] = append(append(c, a...), b...)
	m.used += int64(n)
	return at
}

// grow begins a chunk with room for n bytes.
func (m *arena) grow(n int) {
	if i := len(m.spare) - 1; i >= 0 && cap(m.spare[i]) >= n {
		m.chunks = append(m.chunks, m.spare[i])
		m.spare = m.spare[:i]
		return
	}
	room := firstChunk
	if m.size > firstChunk {
		room = int(min(m.size, largestChunk))
	}
	c := make([]byte, 0, max(room, n))
	m.size += int64(cap(c))
	m.chunks = append(m.chunks, c)
}

// get gives n bytes behind the first skip bytes of what lies at a place.
func (m *arena) get(at place, skip, n uint64) []byte {
	off := uint64(at&(1<<32-1)) + skip
	return m.chunks[at>>32][off : off+n]
}

// reset forgets what is kept, not the memory.
func (m *arena) reset() {
	for _, c := range m.chunks {
		m.spare = append(m.spare, c[:0])
	}
	m.chunks, m.used = m.chunks[:0], 0
}
