// personalise: gives a clone its identity before any user program runs.
//
// Every step is a system call or a small file in memory: a restored guest answers within milliseconds of this, and
// starting programs would cost more than all of it.

package main

import (
	"strings"
	"syscall"
	"unsafe"

	"bhatti/agent/wire"
)

const (
	entropyBytesMin = 32
	entropyBytesMax = 512
	hostnameMax     = 64
)

const (
	ioctlAddEntropy = 0x40085203 // RNDADDENTROPY
	ioctlReseed     = 0x5207     // RNDRESEEDCRNG
	clockRealtime   = 0
)

func (p *prepared) personalise(request wire.Personalise) (wire.Personalised, error) {
	if err := checkPersonalise(request); err != nil {
		return wire.Personalised{}, err
	}
	steps := []struct {
		name string
		run  func() error
	}{
		{"feed the random number generator", func() error { return feedRandom(p.random, request.Entropy) }},
		{"set the clock", func() error { return setClock(request.UnixNs) }},
		{"set the host name", func() error { return p.setHostname(request.Hostname) }},
		{"set the machine id", func() error { return p.files[machineIDFile].write([]byte(request.MachineID + "\n")) }},
		{"set up the network", func() error { return p.setNetwork(request.Network) }},
		{"grow the disk", func() error { return growDisk(request.GrowDisk) }},
		{"complete the image", func() error { return p.completeRoot(request.Image) }},
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return wire.Personalised{}, wire.Errorf(wire.Internal, "%s: %v", step.name, err)
		}
	}
	return wire.Personalised{Image: request.Image != nil}, nil
}

func (p *prepared) refresh(request wire.Refresh) error {
	if err := checkMoment(request.Entropy, request.UnixNs); err != nil {
		return err
	}
	if err := feedRandom(p.random, request.Entropy); err != nil {
		return wire.Errorf(wire.Internal, "feed the random number generator: %v", err)
	}
	if err := setClock(request.UnixNs); err != nil {
		return wire.Errorf(wire.Internal, "set the clock: %v", err)
	}
	return nil
}

func checkMoment(entropy []byte, unixNs int64) error {
	if count := len(entropy); count < entropyBytesMin || count > entropyBytesMax {
		return wire.Errorf(wire.Invalid, "%d bytes of entropy, not %d to %d", count, entropyBytesMin, entropyBytesMax)
	}
	if unixNs <= 0 {
		return wire.Errorf(wire.Invalid, "no time is given")
	}
	return nil
}

func checkPersonalise(request wire.Personalise) error {
	if err := checkMoment(request.Entropy, request.UnixNs); err != nil {
		return err
	}
	if !isHostname(request.Hostname) {
		return wire.Errorf(wire.Invalid, "%q is not a host name", request.Hostname)
	}
	if !isHex(request.MachineID) || len(request.MachineID) != 32 {
		return wire.Errorf(wire.Invalid, "%q is not a machine id", request.MachineID)
	}
	if image := request.Image; image != nil {
		if err := checkText(wire.Exec{Env: image.Env, Cwd: image.Workdir, Argv: []string{image.User}}); err != nil {
			return err
		}
	}
	return checkText(wire.Exec{Env: request.Env})
}

func isHex(text string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

func isHostname(name string) bool {
	if name == "" || len(name) > hostnameMax {
		return false
	}
	for _, character := range name {
		isLetter := character >= 'a' && character <= 'z' || character >= 'A' && character <= 'Z'
		isDigit := character >= '0' && character <= '9'
		if !isLetter && !isDigit && character != '-' && character != '.' {
			return false
		}
	}
	return true
}

// feedRandom credits the bytes and makes the kernel use them for the next read, so that no two clones of a snapshot
// generate the same numbers.
func feedRandom(device int, entropy []byte) error {
	var pool struct {
		bits  int32
		count int32
		bytes [entropyBytesMax]byte
	}
	pool.bits, pool.count = int32(len(entropy)*8), int32(len(entropy))
	copy(pool.bytes[:], entropy)
	if err := ioctl(device, ioctlAddEntropy, unsafe.Pointer(&pool)); err != nil {
		return err
	}
	return ioctl(device, ioctlReseed, nil)
}

func setClock(unixNs int64) error {
	now := syscall.NsecToTimespec(unixNs)
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_SETTIME, clockRealtime, uintptr(unsafe.Pointer(&now)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (p *prepared) setHostname(name string) error {
	if err := syscall.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := p.files[hostnameFile].write([]byte(name + "\n")); err != nil {
		return err
	}
	hosts, err := p.files[hostsFile].read()
	if err != nil {
		return err
	}
	return p.files[hostsFile].write([]byte(hostsNaming(string(hosts), name)))
}

// The address that Debian assigns to a machine's own name, so that sudo and others can resolve it without a
// network.
const ownAddress = "127.0.1.1"

const hostsDefault = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

// hostsNaming changes only the line of the machine's own name; the others are the user's.
func hostsNaming(hosts, name string) string {
	rest := strings.TrimRight(hosts, "\n")
	if strings.TrimSpace(rest) == "" {
		rest = strings.TrimRight(hostsDefault, "\n")
	}
	own := ownAddress + "\t" + name + "\n"
	naming, isNamed, isMore := "", false, true
	for isMore {
		var line string
		line, rest, isMore = strings.Cut(rest, "\n")
		switch {
		case !isOwnLine(line):
			naming += line + "\n"
		case !isNamed:
			naming += own
			isNamed = true
		}
	}
	if !isNamed {
		naming += own
	}
	return naming
}

func isOwnLine(line string) bool {
	line = strings.TrimLeft(line, " \t")
	if !strings.HasPrefix(line, ownAddress) {
		return false
	}
	return len(line) == len(ownAddress) || line[len(ownAddress)] == ' ' || line[len(ownAddress)] == '\t'
}
