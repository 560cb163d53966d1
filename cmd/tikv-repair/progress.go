package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/tikv-repair/tikv-repair/scan"
)

const (
	plainEvery = 10 * time.Second
	barEvery   = 200 * time.Millisecond
)

// watch shows on standard error how far a pass has come, until the function that it returns is called.
func (a *app) watch(what string, m *scan.Meter) (stop func()) {
	mode := a.c.progress
	switch {
	case mode == "" && a.c.quiet:
		mode = "none"
	case mode == "" && a.terminal:
		mode = "bar"
	case mode == "":
		mode = "plain"
	}
	if mode == "none" {
		return func() {}
	}
	show, every, end := a.plain(what, m), plainEvery, func() {}
	switch mode {
	case "json":
		show = a.jsonLine(what, m)
	case "bar":
		// Without a total it is a spinner.
		bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
		show = func(time.Duration) {
			done := m.Done.Load()
			if total := m.Total.Load(); total > 0 {
				bar.ChangeMax64(total)
				done = min(done, total)
			}
			// What cannot be drawn on a terminal is no reason to stop.
			_ = bar.Set64(done)
		}
		every, end = barEvery, func() { _ = bar.Clear() }
	}
	began := a.now()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := a.tick(every)
		for {
			select {
			case <-quit:
				end()
				return
			case <-tick:
				show(a.now().Sub(began))
			}
		}
	}()
	return func() { close(quit); <-done }
}

func (a *app) plain(what string, m *scan.Meter) func(time.Duration) {
	return func(since time.Duration) {
		done, total := m.Done.Load(), m.Total.Load()
		line := fmt.Sprintf("%s: %s", what, bytesText(uint64(done)))
		if total > 0 {
			line += " of " + bytesText(uint64(total))
		}
		if rows := m.Rows.Load(); rows > 0 {
			line += fmt.Sprintf(", %d rows", rows)
		}
		if s := since.Seconds(); s > 0 && done > 0 {
			rate := float64(done) / s
			line += fmt.Sprintf(", %s/s", bytesText(uint64(rate)))
			if total > 0 {
				line += fmt.Sprintf(", %s left", time.Duration(float64(max(total-done, 0))/rate*float64(time.Second)).Round(time.Second))
			}
		}
		fmt.Fprintln(a.stderr, line)
	}
}

func (a *app) jsonLine(what string, m *scan.Meter) func(time.Duration) {
	return func(since time.Duration) {
		b, err := json.Marshal(struct {
			Step    string  `json:"step"`
			Done    int64   `json:"bytes_done"`
			Total   int64   `json:"bytes_total"`
			Rows    int64   `json:"rows"`
			Seconds float64 `json:"seconds"`
		}{what, m.Done.Load(), m.Total.Load(), m.Rows.Load(), since.Seconds()})
		if err == nil {
			fmt.Fprintf(a.stderr, "%s\n", b)
		}
	}
}
