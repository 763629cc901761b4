// The memory that this machine shares with the host: a PCI device whose only resource is that memory. It needs no
// driver.
//
// The host divides it into regions and assigns them to streams; a stream's window is as long as a region, so credit
// alone keeps unread bytes from being overwritten. The last region holds the mark of the connection. The memory
// does not outlive the machine: a copy of this machine that resumes in the middle of a transfer finds zeros.

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"bhatti/agent/wire"
)

const (
	pciDevices   = "/sys/bus/pci/devices"
	sharedVendor = "0x1af4"
	sharedDevice = "0x1110"
)

// sharedBytesMin is the size up to which a file is faster in a frame.
const sharedBytesMin = 16384

// extent is a piece of the shared memory.
type extent struct{ start, end int }

type sharedMemory struct {
	bytes []byte

	mu sync.Mutex
	// used holds the regions being written. A stream of a lost connection may still write when the host, which
	// cannot know, assigns its region to another stream.
	used map[int]bool
}

// openShared returns nil if this machine has no such device.
func openShared(devices string) (*sharedMemory, error) {
	entries, err := os.ReadDir(devices)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, entry := range entries {
		folder := filepath.Join(devices, entry.Name())
		if readWord(folder, "vendor") == sharedVendor && readWord(folder, "device") == sharedDevice {
			return mapShared(folder)
		}
	}
	return nil, nil
}

func readWord(folder, name string) string {
	text, _ := os.ReadFile(filepath.Join(folder, name))
	return strings.TrimSpace(string(text))
}

func mapShared(folder string) (*sharedMemory, error) {
	if err := os.WriteFile(filepath.Join(folder, "enable"), []byte("1"), 0); err != nil {
		return nil, err
	}
	// Where the processor supports it (not under emulation), resource2_wc combines writes.
	file, err := os.OpenFile(filepath.Join(folder, "resource2_wc"), os.O_RDWR, 0)
	if os.IsNotExist(err) {
		file, err = os.OpenFile(filepath.Join(folder, "resource2"), os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return mapFile(file)
}

func mapFile(file *os.File) (*sharedMemory, error) {
	about, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if about.Size() < 2*wire.WindowBytes {
		return nil, fmt.Errorf("%s has %d bytes", file.Name(), about.Size())
	}
	const protection = syscall.PROT_READ | syscall.PROT_WRITE
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(about.Size()), protection, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", file.Name(), err)
	}
	return &sharedMemory{bytes: mapped, used: map[int]bool{}}, nil
}

// generation is the highest that this agent supports on this machine: the second one adds the shared memory.
func (a *agent) generation() uint16 {
	if a.shared == nil {
		return 1
	}
	return wire.Generation
}

// isOf reports whether the memory has belonged to the connection until now, so that the bytes read from it are
// those its host wrote.
func (m *sharedMemory) isOf(c *connection) bool {
	return bytes.Equal(m.mark(), c.nonce[:])
}

func (m *sharedMemory) mark() []byte {
	at := len(m.bytes) - wire.WindowBytes
	return m.bytes[at : at+wire.NonceBytes]
}

// claim returns the region at an offset; nil if it cannot be used.
func (m *sharedMemory) claim(offset int64) []byte {
	if offset < 0 || offset%wire.WindowBytes != 0 || offset > int64(len(m.bytes)-2*wire.WindowBytes) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used[int(offset)] {
		return nil
	}
	m.used[int(offset)] = true
	return m.bytes[offset : offset+wire.WindowBytes]
}

func (m *sharedMemory) release(offset int) {
	m.mu.Lock()
	delete(m.used, offset)
	m.mu.Unlock()
}

// outgoing is the way for an operation's output: a region if the host has named one, otherwise data frames.
type outgoing struct {
	stream   *stream
	region   []byte // nil: frames
	base     int    // of the region
	at       int    // in the region
	frame    *chunk
	reserved int
}

func (a *agent) newOutgoing(s *stream, shared *int64) *outgoing {
	o := &outgoing{stream: s}
	if shared != nil && a.shared != nil {
		o.base, o.region = int(*shared), a.shared.claim(*shared)
	}
	if o.region == nil {
		o.frame = chunks.take()
	}
	return o
}

// room waits for credit and returns where to put up to max bytes; nil if the stream was cancelled.
func (o *outgoing) room(max int) []byte {
	space := o.region[o.at:]
	if o.region == nil {
		space = o.frame[dataRoom:]
	}
	for _, bound := range [...]int{max, wire.SharedPiece} {
		if len(space) > bound {
			space = space[:bound]
		}
	}
	for {
		if o.reserved = o.stream.reserve(len(space)); o.reserved > 0 {
			return space[:o.reserved]
		}
		if !o.stream.awaitCredit() {
			return nil
		}
	}
}

// send sends the first bytes of the buffer that room returned; the rest is not needed.
func (o *outgoing) send(count int) error {
	o.stream.release(o.reserved - count)
	switch {
	case count == 0:
		return nil
	case o.region == nil:
		return o.stream.sendData(wire.Stdout, o.frame[:dataRoom+count])
	}
	place := wire.Place{Channel: wire.Stdout, Offset: o.base + o.at, Length: count}
	o.at = (o.at + count) % len(o.region)
	return o.stream.connection.write(o.stream, wire.AppendDataAt(nil, o.stream.id, place))
}

// drop must be called before the stream's last frame is sent: the host may assign the region to another stream
// after that.
func (o *outgoing) drop() {
	if o.region == nil {
		chunks.giveBack(o.frame)
		return
	}
	o.stream.connection.agent.shared.release(o.base)
}
