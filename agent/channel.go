// The channel to the host: a virtio-serial port, found by its name.
//
// While no host is connected, the kernel's read returns 0 immediately and its poll reports a hang-up; connecting
// and disconnecting wake the poll. So after a 0 the agent waits in the runtime's poller, which is edge-triggered,
// and a disconnected agent costs no processor time.

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	channelName     = "bhatti.agent"
	channelClass    = "/sys/class/virtio-ports"
	channelDeadline = 10 * time.Second
)

type channel struct {
	*os.File
	raw      syscall.RawConn
	hasPeer  bool
	received int
	failure  error
}

// openChannel waits for the port: the kernel creates it some time after the module is loaded.
func openChannel() (*channel, error) {
	for end := time.Now().Add(channelDeadline); ; time.Sleep(time.Millisecond) {
		device, err := findPort(channelClass, channelName)
		if err != nil {
			return nil, err
		}
		if device != "" {
			return newChannel(filepath.Join("/dev", device))
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no port %s in %v", channelName, channelDeadline)
		}
	}
}

// findPort returns the device of a port by its name; "" if it does not exist yet.
func findPort(class, wanted string) (string, error) {
	ports, err := os.ReadDir(class)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	for _, port := range ports {
		name, err := os.ReadFile(filepath.Join(class, port.Name(), "name"))
		if err == nil && strings.TrimSpace(string(name)) == wanted {
			return port.Name(), nil
		}
	}
	return "", nil
}

func newChannel(path string) (*channel, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &channel{File: file, raw: raw}, nil
}

// Read waits for bytes. It returns errPeerGone once when a host that has sent bytes disconnects.
func (c *channel) Read(buffer []byte) (int, error) {
	err := c.raw.Read(func(fd uintptr) bool {
		for {
			c.received, c.failure = syscall.Read(int(fd), buffer)
			if c.failure != syscall.EINTR {
				break
			}
		}
		if c.failure == syscall.EAGAIN {
			return false
		}
		return c.received != 0 || c.failure != nil || c.hasPeer
	})
	switch {
	case err != nil:
		return 0, err
	case c.failure != nil:
		return 0, fmt.Errorf("read the channel: %w", c.failure)
	case c.received > 0:
		c.hasPeer = true
		return c.received, nil
	case c.hasPeer:
		c.hasPeer = false
		return 0, errPeerGone
	}
	return 0, io.EOF
}
