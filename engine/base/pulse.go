package base

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Meter is how far a piece of work has come, in bytes or in whatever it counts. Those who work add to it, whoever prints reads it.
type Meter struct {
	// Total is what is needed; 0 while nobody knows. Done is what is done of it.
	Total, Done atomic.Int64
	// Rows counts rows beside the bytes.
	Rows atomic.Int64
}

// Pulse is where a run says what it is doing. It sits on the file-system seam, because everything that takes long goes through it: a watched
// FS counts the bytes that are read and written, and asks before each operation whether the run is to end. Phases on top say what the
// bytes are good for, and how many there will be. All methods may be called from any goroutine.
type Pulse struct {
	now  func() time.Time
	stop func() error

	read, written, ops atomic.Int64

	ending  atomic.Bool
	refused atomic.Bool

	mu     sync.Mutex
	phases []*Phase // the one that began last is what is being done
}

// NewPulse makes a pulse. stop is asked before every file operation: its error is what the operation gives, and nothing is done.
func NewPulse(now func() time.Time, stop func() error) *Pulse { return &Pulse{now: now, stop: stop} }

// Refused tells whether a file operation was not done because stop said so. What was printed after that may not be the whole truth.
func (p *Pulse) Refused() bool { return p.refused.Load() }

// ask is called before every file operation.
func (p *Pulse) ask() error {
	p.ops.Add(1)
	if p.ending.Load() {
		return nil
	}
	err := p.stop()
	if err != nil {
		p.refused.Store(true)
	}
	return err
}

// pulseOf finds the pulse of a watched FS; nil when nobody watches.
func pulseOf(fs FS) *Pulse {
	switch w := fs.(type) {
	case watched:
		return w.p
	case directReads:
		return pulseOf(w.FS)
	}
	return nil
}

// Stopped is the error with which the run that fs belongs to is to end, nil while it may go on. Loops that touch no file ask it now and
// then.
func Stopped(fs FS) error {
	p := pulseOf(fs)
	if p == nil || p.ending.Load() {
		return nil
	}
	return p.stop()
}

// Refused is the error with which the run is to end, if a file operation has not been done because of it: then nothing that was made of
// the answers counts. Nil otherwise.
func Refused(fs FS) error {
	if p := pulseOf(fs); p != nil && p.refused.Load() {
		return p.stop()
	}
	return nil
}

// Unwind says that a run that is to end is ending: from here on file operations are done again, so that it can write down where it stands
// and take away what is of no use to anybody. Nothing else may be changed after it. A run that may go on is not touched.
func Unwind(fs FS) {
	if p := pulseOf(fs); p != nil && p.stop() != nil {
		p.ending.Store(true)
	}
}

// Counting is the unit of a phase.
type Counting uint8

const (
	// Nothing: only the time and what passes through the seam tell of progress.
	Nothing Counting = iota
	// Bytes that the phase adds.
	Bytes
	// BytesRead counts what is read through the seam while the phase lasts.
	BytesRead
	// BytesWritten counts what is written through the seam while the phase lasts.
	BytesWritten
	// Items that the phase adds: tables, regions, files.
	Items
)

// Phase is one thing that a run does and that can take long. The zero phase, of a file system that nobody watches, counts for nobody.
type Phase struct {
	*Meter
	p              *Pulse
	name, unit     string
	counting       Counting
	began          time.Time
	read0, written int64
}

// Begin starts a phase on the pulse that watches fs. End must be called. A phase that begins inside another one hides it until it ends.
func Begin(fs FS, name string) *Phase {
	p := pulseOf(fs)
	if p == nil {
		return &Phase{Meter: new(Meter)}
	}
	return p.Begin(name, nil)
}

// Begin starts a phase. A meter of somebody else counts bytes; nil makes one that counts nothing yet.
func (p *Pulse) Begin(name string, m *Meter) *Phase {
	ph := &Phase{Meter: m, p: p, name: name, began: p.now(), read0: p.read.Load(), written: p.written.Load()}
	if m == nil {
		ph.Meter = new(Meter)
	} else {
		ph.counting = Bytes
	}
	p.mu.Lock()
	p.phases = append(p.phases, ph)
	p.mu.Unlock()
	return ph
}

// Needs says what the phase counts and how much of it there will be; 0 is unknown. unit names items ("regions").
func (ph *Phase) Needs(c Counting, total int64, unit string) *Phase {
	if ph.p != nil {
		ph.p.mu.Lock()
		defer ph.p.mu.Unlock()
	}
	ph.counting, ph.unit = c, unit
	ph.Total.Store(total)
	return ph
}

// Reads says that the phase is through when total bytes have been read.
func (ph *Phase) Reads(total int64) *Phase { return ph.Needs(BytesRead, total, "") }

// Items says that the phase deals with total of something.
func (ph *Phase) Items(total int, unit string) *Phase { return ph.Needs(Items, int64(total), unit) }

// Did adds what has been done and gives the error with which the run is to end, if it is.
func (ph *Phase) Did(n int64) error {
	ph.Done.Add(n)
	if ph.p == nil || ph.p.ending.Load() {
		return nil
	}
	return ph.p.stop()
}

// End ends the phase. A second call does nothing.
func (ph *Phase) End() {
	if ph.p == nil {
		return
	}
	ph.p.mu.Lock()
	defer ph.p.mu.Unlock()
	if i := slices.Index(ph.p.phases, ph); i >= 0 {
		ph.p.phases = slices.Delete(ph.p.phases, i, i+1)
	}
}

// Sign is a sign of life: what is being done at one moment, and how far it has come.
type Sign struct {
	// Step is what the run as a whole does (the outermost phase), Phase what it is at now; "" when that is all there is to say.
	Step, Phase string
	Counting    Counting
	Unit        string // of items
	// Done of Total; Total is 0 when nobody knows it.
	Done, Total int64
	Rows        int64
	// Read and Written are the bytes that passed through the seam since the phase began.
	Read, Written int64
	// Since is how long the phase lasts.
	Since time.Duration
}

// Sign looks at the phase that began last. ok is false while no phase runs.
func (p *Pulse) Sign() (s Sign, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.phases)
	if n == 0 {
		return Sign{}, false
	}
	ph := p.phases[n-1]
	s = Sign{Step: p.phases[0].name, Counting: ph.counting, Unit: ph.unit, Rows: ph.Rows.Load(), Since: p.now().Sub(ph.began),
		Read: p.read.Load() - ph.read0, Written: p.written.Load() - ph.written, Done: ph.Done.Load(), Total: ph.Total.Load()}
	if n > 1 {
		s.Phase = ph.name
	}
	switch s.Counting {
	case BytesRead:
		s.Done = s.Read
	case BytesWritten:
		s.Done = s.Written
	}
	if s.Total > 0 {
		s.Done = min(s.Done, s.Total)
	}
	return s, true
}

// Rate is how much is done in a second; 0 when nothing can be said yet.
func (s Sign) Rate() float64 {
	if t := s.Since.Seconds(); t > 0 {
		return float64(s.Done) / t
	}
	return 0
}

// Left is how long the phase will still take at its rate so far; ok is false when that cannot be told.
func (s Sign) Left() (d time.Duration, ok bool) {
	rate := s.Rate()
	if s.Total <= 0 || rate <= 0 {
		return 0, false
	}
	return time.Duration(float64(s.Total-s.Done) / rate * float64(time.Second)), true
}
