// Requests that are refused before they change anything, and how the boot continues or ends.

package main

import (
	"errors"
	"strings"
	"testing"

	"bhatti/agent/wire"
)

func goodIdentity() wire.Personalise {
	return wire.Personalise{
		Entropy: make([]byte, 64), UnixNs: 1700000000000000000, Hostname: "dev-1.example",
		MachineID: "0123456789abcdef0123456789abcdef", Env: map[string]string{"A": "b"},
	}
}

func TestABadIdentityIsRefusedBeforeAnythingChanges(t *testing.T) {
	if err := checkPersonalise(goodIdentity()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wire.Personalise){
		"little entropy":    func(p *wire.Personalise) { p.Entropy = p.Entropy[:31] },
		"much entropy":      func(p *wire.Personalise) { p.Entropy = make([]byte, 513) },
		"no time":           func(p *wire.Personalise) { p.UnixNs = 0 },
		"no name":           func(p *wire.Personalise) { p.Hostname = "" },
		"a name with lines": func(p *wire.Personalise) { p.Hostname = "a\nb" },
		"a long name":       func(p *wire.Personalise) { p.Hostname = strings.Repeat("a", 65) },
		"a short id":        func(p *wire.Personalise) { p.MachineID = "12" },
		"an id of no hex":   func(p *wire.Personalise) { p.MachineID = strings.Repeat("g", 32) },
		"a bad variable":    func(p *wire.Personalise) { p.Env = map[string]string{"": "x"} },
	} {
		request := goodIdentity()
		change(&request)
		if err := checkPersonalise(request); err == nil || asError(err).Code != wire.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOptionalBootStepIsReported(t *testing.T) {
	isLastRun := false
	steps := []bootStep{
		{"first", false, func() error { return errors.New("no luck") }},
		{"last", true, func() error { isLastRun = true; return nil }},
	}
	failures, err := boot(steps)
	if err != nil || !isLastRun || len(failures) != 1 || failures[0] != "first: no luck" {
		t.Errorf("%v %v", failures, err)
	}
}

func TestANecessaryBootStepEndsTheBoot(t *testing.T) {
	steps := []bootStep{
		{"disk", true, func() error { return errors.New("no disk") }},
		{"never", true, func() error { t.Error("the boot went on"); return nil }},
	}
	if _, err := boot(steps); err == nil || err.Error() != "disk: no disk" {
		t.Errorf("%v", err)
	}
}
