// The operations on services: which there are, what changes them, and the checks before a change.

package main

import (
	"reflect"

	"bhatti/agent/wire"
)

func (a *agent) serviceStart(s *stream, payload []byte) {
	var request wire.ServiceStart
	err := wire.Decode(payload, &request)
	if err == nil {
		err = a.addServices(request.Services)
	}
	if err != nil {
		s.fail(asError(err))
		return
	}
	s.succeed(a.services.describe())
}

func (a *agent) serviceList(s *stream, _ []byte) { s.succeed(a.services.describe()) }

func (a *agent) serviceControl(s *stream, payload []byte) {
	var request wire.ServiceControl
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	t := &a.services
	t.mu.Lock()
	v := t.find(request.Service)
	t.mu.Unlock()
	switch {
	case v == nil:
		s.fail(wire.Errorf(wire.NotFound, "no service %q", request.Service))
	case request.Action != wire.ServiceActionStart && request.Action != wire.ServiceActionStop &&
		request.Action != wire.ServiceActionRestart:
		s.fail(wire.Errorf(wire.Invalid, "a service is started, stopped or restarted, and knows no %q", request.Action))
	default:
		go func() {
			t.changing.Lock()
			defer t.changing.Unlock()
			if request.Action != wire.ServiceActionStart {
				t.stop(v, serviceEndDeadline, senderOr(request.By, wire.ByGuest))
			}
			if request.Action != wire.ServiceActionStop {
				t.start(v)
			}
			s.succeed(t.describe())
		}()
	}
}

// senderOr names who asks for a stop. Earlier hosts name nobody, and read what earlier agents told them.
func senderOr(by, unnamed string) string {
	if by == "" {
		return unnamed
	}
	return by
}

// addServices starts those that are not there yet.
func (a *agent) addServices(specs []wire.Service) error {
	t := &a.services
	t.mu.Lock()
	defer t.mu.Unlock()
	known := map[string]bool{}
	for _, v := range t.all {
		known[v.spec.Name] = true
	}
	ordered, err := orderServices(specs, known)
	if err != nil {
		return err
	}
	var added []*service
	for _, spec := range ordered {
		before := t.find(spec.Name)
		switch {
		case before == nil:
			added = append(added, &service{agent: a, spec: spec, state: wire.ServiceStopped})
		case !reflect.DeepEqual(before.spec, spec):
			return wire.Errorf(wire.Conflict, "there is another service %q", spec.Name)
		}
	}
	if len(t.all)+len(added) > servicesMax {
		return wire.Errorf(wire.LimitExceeded, "more than %d services", servicesMax)
	}
	for _, v := range added {
		t.all = append(t.all, v)
		v.run()
	}
	return nil
}

// serviceSet makes the services those that the request names. A refused request changes nothing.
func (a *agent) serviceSet(s *stream, payload []byte) {
	var request wire.ServiceSet
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	go func() {
		if err := a.setServices(request); err != nil {
			s.fail(asError(err))
			return
		}
		s.succeed(a.services.describe())
	}()
}

// setServices leaves services that stay the same alone. It ends the others, the last one first, and starts new ones.
func (a *agent) setServices(request wire.ServiceSet) error {
	ordered, err := orderServices(request.Services, nil)
	if err != nil {
		return err
	}
	if len(ordered) > servicesMax {
		return wire.Errorf(wire.LimitExceeded, "more than %d services", servicesMax)
	}
	t := &a.services
	t.changing.Lock()
	defer t.changing.Unlock()
	t.mu.Lock()
	before := append([]*service(nil), t.all...)
	t.mu.Unlock()
	after, leaving, err := a.compareServices(before, ordered)
	if err != nil {
		return err
	}
	t.stopInReverse(leaving, senderOr(request.By, wire.ByClient))
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, v := range leaving {
		v.isGone = true
	}
	t.all = after
	for _, v := range after {
		if v.isNew {
			v.isNew = false
			v.run()
		}
	}
	return nil
}

// compareServices finds out which services stay, and which leave. It refuses a new one that cannot be started.
func (a *agent) compareServices(before []*service, wanted []wire.Service) (after, leaving []*service, err error) {
	stays := map[*service]bool{}
	for _, spec := range wanted {
		var same *service
		for _, v := range before {
			if v.spec.Name == spec.Name && reflect.DeepEqual(v.spec, spec) {
				same = v
			}
		}
		if same == nil {
			if err := a.checkNewService(spec, before); err != nil {
				return nil, nil, err
			}
			same = &service{agent: a, spec: spec, state: wire.ServiceStopped, isNew: true}
		}
		stays[same] = true
		after = append(after, same)
	}
	for _, v := range before {
		if !stays[v] {
			leaving = append(leaving, v)
		}
	}
	return after, leaving, nil
}

// checkNewService refuses a program that cannot be started, and the name of a process that is no service.
func (a *agent) checkNewService(spec wire.Service, before []*service) error {
	if err := a.checkServiceProgram(spec); err != nil {
		return err
	}
	for _, v := range before {
		if v.spec.Name == spec.Name {
			return nil
		}
	}
	if p, err := a.processes.find(spec.Name); err == nil && !p.hasEnded() {
		return wire.Errorf(wire.Conflict, "%q is running already (%s)", spec.Name, p.id)
	}
	return nil
}

// checkServiceProgram finds what a start needs: the user, the directory and the program.
func (a *agent) checkServiceProgram(spec wire.Service) error {
	a.mu.Lock()
	sandboxEnv := a.env
	a.mu.Unlock()
	request := execOf(spec)
	if _, err := prepareLaunch(request, sandboxEnv); err != nil || spec.Program == "" {
		return err
	}
	request.Argv = []string{spec.Program}
	_, err := prepareLaunch(request, sandboxEnv)
	return err
}

func execOf(spec wire.Service) wire.Exec {
	return wire.Exec{Argv: spec.Argv, Env: spec.Env, Cwd: spec.Cwd, User: spec.User}
}
