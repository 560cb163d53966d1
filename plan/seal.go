package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Seal sets the plan's hash over everything else in it.
func (p *Plan) Seal() error {
	p.Hash = ""
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	p.Hash = sealOf(b)
	return nil
}

func sealOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// CheckSeal tells whether the JSON of a plan, indented or not, is what was sealed. It works on the bytes: a value that this version
// does not know counts too.
func CheckSeal(b []byte) error {
	var c bytes.Buffer
	if err := json.Compact(&c, b); err != nil {
		return err
	}
	const field = `"hash":"`
	all := c.Bytes()
	at := bytes.LastIndex(all, []byte(field))
	if at < 0 || !bytes.HasSuffix(all, []byte(`"}`)) || len(all) != at+len(field)+2*sha256.Size+2 {
		return fmt.Errorf("it does not end with its hash")
	}
	said := string(all[at+len(field) : len(all)-2])
	open := append(bytes.Clone(all[:at+len(field)]), `"}`...)
	if is := sealOf(open); is != said {
		return fmt.Errorf("its hash is %s, its content has %s", said, is)
	}
	return nil
}
