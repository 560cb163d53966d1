package edit

import (
	"encoding/json"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// stopFile says why the last run of an edit stopped.
const stopFile = "stopped.json"

type stopNote struct {
	State State  `json:"state"`
	Error string `json:"error"`
}

// Note writes down why a run stopped. Nobody depends on it, so that it may fail, and be lost in a crash, without a word: the run's own error
// is what counts.
func (t *Tx) Note(why error) {
	if cause := base.Refused(t.fs); cause != nil {
		why = cause
	}
	base.Unwind(t.fs)
	b, err := json.Marshal(stopNote{t.J.State, why.Error()})
	if err == nil {
		_ = base.WriteFileSync(t.fs, t.fs.PathJoin(t.backup, stopFile), append(b, '\n'), "")
	}
}

// Stopped is what Note wrote last; "" when it wrote nothing, or nothing that can be read.
func (t *Tx) Stopped() string {
	var n stopNote
	if readJSON(t.fs, t.fs.PathJoin(t.backup, stopFile), &n) != nil {
		return ""
	}
	return n.Error
}

// Ended is when the result was written, RFC 3339; "" without one.
func (t *Tx) Ended() string {
	st, err := t.fs.Stat(t.fs.PathJoin(t.backup, "result.json"))
	if err != nil {
		return ""
	}
	return st.ModTime().UTC().Format(time.RFC3339)
}
