// Services over the connection loop: their order, what follows their ends, and how they are ended.

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bhatti/agent/wire"
)

func serviceOf(name, script string, more map[string]any) map[string]any {
	service := map[string]any{"name": name, "argv": []string{"sh", "-c", script}, "user": ownName, "cwd": "/"}
	for key, value := range more {
		service[key] = value
	}
	return service
}

// states asks an operation on services for their states, by name.
func (h *host) states(op string, request map[string]any) map[string]wire.ServiceState {
	h.t.Helper()
	answer := h.ask(op, request)
	if answer.Error != nil {
		h.t.Fatal(answer.Error)
	}
	text, _ := json.Marshal(answer.OK)
	var read wire.Services
	if err := json.Unmarshal(text, &read); err != nil {
		h.t.Fatal(err)
	}
	states := map[string]wire.ServiceState{}
	for _, state := range read.Services {
		states[state.Name] = state
	}
	return states
}

func (h *host) services(services ...map[string]any) map[string]wire.ServiceState {
	h.t.Helper()
	h.t.Cleanup(func() { h.agent.services.stopAll() })
	return h.states("service_start", map[string]any{"services": services})
}

func (h *host) service(name string) wire.ServiceState {
	h.t.Helper()
	return h.states("service_list", nil)[name]
}

func TestServicesStartInTheirOrderAndEndInTheReverse(t *testing.T) {
	h := personalised(t)
	told := filepath.Join(t.TempDir(), "told")
	script := func(name string) string {
		return "trap 'echo -" + name + " >> " + told + "; exit 0' TERM; echo +" + name + " >> " + told + "; while :; do sleep 0.01; done"
	}
	h.services(serviceOf("web", script("web"), map[string]any{"after": []string{"db", "cache"}}),
		serviceOf("db", script("db"), nil), serviceOf("cache", script("cache"), map[string]any{"after": []string{"db"}}))
	lines := func() string {
		text, _ := os.ReadFile(told)
		return strings.Join(strings.Fields(string(text)), " ")
	}
	await(t, "all run", func() bool { return strings.Count(lines(), "+") == 3 })
	h.agent.services.stopAll()
	if got := lines(); !strings.HasSuffix(got, "-web -cache -db") {
		t.Errorf("%s", got)
	}
	if state := h.service("db"); state.State != wire.ServiceStopped || state.Ended == nil || state.Ended.ExitCode != 0 {
		t.Errorf("%+v", state)
	}
}

func TestAServiceThatIgnoresTheSignalIsKilledWithItsWholeSession(t *testing.T) {
	h := personalised(t)
	ready := filepath.Join(t.TempDir(), "ready")
	h.services(serviceOf("stubborn", "trap '' TERM; sh -c 'sleep 1000 & echo $! > "+ready+"; wait' & wait; sleep 1000", nil))
	await(t, "it runs", func() bool { text, _ := os.ReadFile(ready); return len(text) > 0 })
	v := h.agent.services.find("stubborn")
	h.agent.services.stop(v, 50*time.Millisecond, wire.ByClient)
	await(t, "its end is noted", func() bool { return h.service("stubborn").Ended != nil })
	if v.process.child.status.Signal().String() != "killed" {
		t.Errorf("%+v", h.service("stubborn"))
	}
	child, _ := os.ReadFile(ready)
	await(t, "its child is gone", func() bool {
		_, err := os.Stat("/proc/" + strings.TrimSpace(string(child)))
		return os.IsNotExist(err)
	})
}

func TestThePolicyDecidesWhetherAServiceRunsAgain(t *testing.T) {
	for policy, isAgain := range map[string][2]bool{ // after a success, after a failure
		wire.RestartAlways: {true, true}, wire.RestartOnFailure: {false, true}, wire.RestartNever: {false, false},
	} {
		for code := 0; code < 2; code++ {
			h := personalised(t)
			runs := filepath.Join(t.TempDir(), "runs")
			h.services(serviceOf("job", fmt.Sprintf("echo >> %s; exit %d", runs, code), map[string]any{"restart": policy}))
			if isAgain[code] {
				await(t, policy+": it runs again", func() bool { return h.service("job").Restarts >= 1 })
				continue
			}
			await(t, policy+": it ends", func() bool { return h.service("job").State == wire.StateEnded })
			if state := h.service("job"); state.Restarts != 0 || state.Ended.ExitCode != code || state.RetryMs != nil {
				t.Errorf("%s %d: %+v", policy, code, state)
			}
		}
	}
}

func TestAServiceThatKeepsFailingIsToldOnceAndTriedEverLessOften(t *testing.T) {
	h := connectAs(t, wire.ProcessGeneration)
	h.personalise()
	watch := h.start("watch", nil)
	h.services(serviceOf("crash", "echo out of luck >&2; exit 3", nil))
	var notice wire.ServiceNotice
	for notice.ServiceFailing.Name == "" {
		if err := json.Unmarshal(h.frame(watch).Payload, &notice); err != nil {
			t.Fatal(err)
		}
	}
	if got := notice.ServiceFailing; !got.IsFailing || got.Restarts != endsUntilFailing-1 || got.Ended.ExitCode != 3 {
		t.Errorf("%+v", got)
	}
	// Its last runs and their output are kept, and no more.
	if count := len(h.agent.processes.list()); count > 2 {
		t.Errorf("%d processes are kept", count)
	}
	delays := []time.Duration{restartDelay(1), restartDelay(2), restartDelay(9), restartDelay(10), restartDelay(1000)}
	if fmt.Sprint(delays) != "[100ms 200ms 25.6s 30s 30s]" {
		t.Errorf("%v", delays)
	}
}

func TestAServiceWhoseProgramIsMissingIsTriedAgainAndSaysWhy(t *testing.T) {
	h := personalised(t)
	missing := filepath.Join(t.TempDir(), "program")
	service := map[string]any{"name": "late", "argv": []string{missing}, "user": ownName, "cwd": "/"}
	state := h.services(service)["late"]
	if state.Failure == nil || !strings.Contains(*state.Failure, missing) || state.State != wire.ServiceBackingOff {
		t.Fatalf("%+v", state)
	}
	if err := os.WriteFile(missing, []byte("#!/bin/sh\nsleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	await(t, "it runs", func() bool { return h.service("late").State == wire.StateRunning })
}

func TestAServiceIsStoppedStartedAndRestarted(t *testing.T) {
	h := personalised(t)
	process := func(state wire.ServiceState) string { return *state.Process }
	first := process(h.services(serviceOf("web", "sleep 1000", nil))["web"])
	control := func(action string) wire.ServiceState {
		return h.states("service_control", map[string]any{"service": "web", "action": action})["web"]
	}
	if stopped := control("stop"); stopped.State != wire.ServiceStopped || process(stopped) != first {
		t.Errorf("%+v", stopped)
	}
	second := control("start")
	if second.State != wire.StateRunning || process(second) == first {
		t.Errorf("%+v", second)
	}
	if third := control("restart"); third.State != wire.StateRunning || process(third) == process(second) {
		t.Errorf("%+v", third)
	}
	if answer := h.ask("service_control", map[string]any{"service": "other", "action": "stop"}); answer.Error.Code != wire.NotFound {
		t.Errorf("%v", answer.Error)
	}
}

func TestTheSameServicesAgainChangeNothingAndOthersAreRefused(t *testing.T) {
	h := personalised(t)
	one := serviceOf("one", "sleep 1000", nil)
	before := h.services(one)["one"]
	if again := h.services(one)["one"]; *again.Process != *before.Process {
		t.Errorf("%+v", again)
	}
	loop := []map[string]any{
		serviceOf("a", "true", map[string]any{"after": []string{"b"}}),
		serviceOf("b", "true", map[string]any{"after": []string{"a"}}),
	}
	for name, services := range map[string][]map[string]any{
		"another of that name": {serviceOf("one", "sleep 1", nil)},
		"a loop":               loop,
		"after none":           {serviceOf("a", "true", map[string]any{"after": []string{"none"}})},
		"a bad name":           {serviceOf("p1", "true", nil)},
		"a bad policy":         {serviceOf("a", "true", map[string]any{"restart": "sometimes"})},
		"no program":           {{"name": "a"}},
		"one twice":            {serviceOf("a", "true", nil), serviceOf("a", "true", nil)},
	} {
		if answer := h.ask("service_start", map[string]any{"services": services}); answer.Error == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if states := h.states("service_list", nil); len(states) != 1 {
		t.Errorf("%+v", states)
	}
}

func TestASetOfServicesLeavesThoseThatStayAloneAndEndsTheOthers(t *testing.T) {
	h := personalised(t)
	sleeper := func(name string) map[string]any { return serviceOf(name, "exec sleep 1000", nil) }
	before := h.services(sleeper("db"), sleeper("web"), sleeper("old"))
	changed := serviceOf("web", "exec sleep 2000", nil)
	after := h.states("service_set", map[string]any{"services": []any{sleeper("db"), changed, sleeper("new")}, "by": "client"})
	if len(after) != 3 || *after["db"].Process != *before["db"].Process || *after["web"].Process == *before["web"].Process {
		t.Errorf("%+v", after)
	}
	for name, state := range after {
		if state.State != wire.StateRunning {
			t.Errorf("%s: %+v", name, state)
		}
	}
	gone, err := h.agent.processes.find(*before["old"].Process)
	if err != nil || gone.ended == nil || *gone.ended.By != wire.ByClient {
		t.Errorf("%v %+v", err, gone)
	}
}

func TestARefusedSetOfServicesChangesNothing(t *testing.T) {
	h := personalised(t)
	stays := serviceOf("db", "exec sleep 1000", nil)
	before := h.services(stays)
	h.ask("process_start", map[string]any{"argv": []string{"sleep", "1000"}, "user": ownName, "cwd": "/", "name": "taken", "on_disconnect": "keep", "attach": false})
	taken, err := h.agent.processes.find("taken")
	must(t, err)
	t.Cleanup(func() {
		taken.child.killSession()
		<-taken.finished
	})
	for want, bad := range map[string]map[string]any{
		"no_program": serviceOf("x", "nosuch --now", map[string]any{"program": "nosuch"}),
		"no_user":    serviceOf("x", "true", map[string]any{"user": "nobody-here"}),
		"conflict":   serviceOf("taken", "true", nil),
		"invalid":    serviceOf("x", "true", map[string]any{"after": []string{"y"}}),
	} {
		answer := h.ask("service_set", map[string]any{"services": []any{bad}})
		if answer.Error == nil || string(answer.Error.Reason) != want && string(answer.Error.Code) != want {
			t.Errorf("%s: %+v", want, answer)
		}
	}
	if after := h.states("service_list", nil); len(after) != 1 || *after["db"].Process != *before["db"].Process {
		t.Errorf("%+v", after)
	}
}

func TestAServiceSaysThatItsProgramIsMissing(t *testing.T) {
	h := personalised(t)
	states := h.services(serviceOf("x", "nosuch", map[string]any{"program": "nosuch"}))
	if state := states["x"]; state.FailureReason != wire.NoProgram || *state.Failure != `no program "nosuch" in PATH` {
		t.Errorf("%+v", state)
	}
}

func TestAStopOfAServiceIsTheRequestersAndNotTheAgents(t *testing.T) {
	h := personalised(t)
	h.services(serviceOf("web", "exec sleep 1000", nil))
	h.states("service_control", map[string]any{"service": "web", "action": "stop", "by": "client"})
	if ended := h.service("web").Ended; ended == nil || ended.By == nil || *ended.By != wire.ByClient {
		t.Errorf("%+v", ended)
	}
}

func TestTheAnswerToAStopHasTheEnd(t *testing.T) {
	h := personalised(t)
	h.services(serviceOf("web", "exec sleep 1000", nil))
	for round := 0; round < 100; round++ {
		stopped := h.states("service_control", map[string]any{"service": "web", "action": "stop", "by": "client"})["web"]
		if stopped.Ended == nil {
			t.Fatalf("round %d: %+v", round, stopped)
		}
		h.states("service_control", map[string]any{"service": "web", "action": "start"})
		h.agent.services.mu.Lock()
		h.agent.services.find("web").ended = nil
		h.agent.services.mu.Unlock()
	}
}
