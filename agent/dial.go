// TCP inside the guest: a connection to one of its ports for the host, and the list of ports.

package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const dialDeadline = 10 * time.Second

func (a *agent) dial(s *stream, payload []byte) {
	var request wire.Dial
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	if request.Port < 1 || request.Port > 65535 {
		s.fail(wire.Errorf(wire.Invalid, "%d is not a port", request.Port))
		return
	}
	go func() {
		conn, err := dialOwn(request.Port)
		if err != nil {
			s.fail(asError(err))
			return
		}
		s.message(wire.Connected{})
		if err := relay(s, conn); err != nil {
			s.fail(asError(err))
			return
		}
		s.succeed(wire.Empty{})
	}()
}

func dialOwn(port int) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialDeadline, KeepAlive: -1}
	var refusal error
	for _, address := range []string{"127.0.0.1", "::1"} {
		conn, err := dialer.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return nil, wire.Errorf(wire.Unavailable, "nothing answers on port %d: %v", port, errors.Unwrap(refusal))
}

// relay moves bytes both ways until both have ended, or the host closes.
func relay(s *stream, conn *net.TCPConn) error {
	defer conn.Close()
	isOver := make(chan struct{})
	defer close(isOver)
	go func() {
		select {
		case <-s.cancelled:
			// Both directions use the connection; it is reset rather than closed.
			_ = conn.SetLinger(0)
			conn.Close()
		case <-isOver:
		}
	}()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		feedConn(s, conn)
	}()
	err := pumpConn(s, conn)
	if err != nil {
		s.stopInput()
		_ = conn.SetLinger(0)
		_ = conn.SetWriteDeadline(time.Now())
	}
	<-fed
	if s.isCancelled() {
		return errGivenUp
	}
	return err
}

func feedConn(s *stream, conn *net.TCPConn) {
	wants := true
	for bytes := s.takeInput(); bytes != nil; bytes = s.takeInput() {
		if wants {
			_, err := conn.Write(bytes)
			// Bytes that nobody reads any more are dropped, so that the host does not wait for ever.
			wants = err == nil
		}
		s.giveBack(len(bytes))
	}
	if s.hasWholeInput() {
		_ = conn.CloseWrite()
	}
}

// pumpConn sends the bytes of the connection and its end. It holds no buffer while it waits.
func pumpConn(s *stream, conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		isStarved, n := false, 0
		var failure error
		err := raw.Read(func(fd uintptr) bool {
			var again bool
			n, again, failure = forward(s, int(fd))
			isStarved = n < 0
			return !again
		})
		switch {
		case err != nil || failure == errOver:
			return errGivenUp
		case failure != nil:
			return wire.Errorf(wire.Unavailable, "the connection in the guest broke: %v", failure)
		case isStarved && !s.awaitCredit():
			return errGivenUp
		case n == 0:
			s.send(wire.End, []byte{wire.Stdout})
			return nil
		}
	}
}

// forward sends one chunk from a descriptor. It returns their number, 0 at the end, -1 without
// credit; again means that there are no bytes yet.
func forward(s *stream, fd int) (n int, again bool, err error) {
	credit := s.reserve(chunkBytes)
	if credit == 0 {
		return -1, false, nil
	}
	buffer := chunks.take()
	defer chunks.giveBack(buffer)
	n, err = read(fd, buffer[dataRoom:dataRoom+credit])
	s.release(credit - n)
	switch {
	case err == syscall.EAGAIN:
		return 0, true, nil
	case err != nil || n == 0:
		return 0, false, err
	}
	if err := s.sendData(wire.Stdout, buffer[:dataRoom+n]); err != nil {
		return 0, false, err
	}
	return n, false, nil
}

// listening is the state of a socket that waits for connections, as /proc/net/tcp writes it.
const listening = "0A"

func (a *agent) ports(s *stream, _ []byte) {
	go func() { s.succeed(wire.Ports{Ports: listPorts("/proc/net/tcp", "/proc/net/tcp6")}) }()
}

func listPorts(tables ...string) []wire.Port {
	isSeen := map[wire.Port]bool{}
	ports := []wire.Port{}
	for _, path := range tables {
		file, err := os.Open(path)
		if err != nil {
			continue // A kernel without IPv6 has no such table.
		}
		table, _ := io.ReadAll(io.LimitReader(file, 16<<20))
		file.Close()
		for _, line := range strings.Split(string(table), "\n") {
			port, isListening := parsePort(line)
			if isListening && !isSeen[port] && len(ports) < wire.PortsMax {
				isSeen[port] = true
				ports = append(ports, port)
			}
		}
	}
	sort.Slice(ports, func(i, j int) bool {
		if ports[i].Port != ports[j].Port {
			return ports[i].Port < ports[j].Port
		}
		return ports[i].Address < ports[j].Address
	})
	return ports
}

// parsePort reads a line of the table. The address is in four-byte words in the machine's byte order.
func parsePort(line string) (wire.Port, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != listening {
		return wire.Port{}, false
	}
	address, number, _ := strings.Cut(fields[1], ":")
	port, err := strconv.ParseUint(number, 16, 16)
	bytes, hexErr := hex.DecodeString(address)
	if err != nil || hexErr != nil || port == 0 || len(bytes) != 4 && len(bytes) != 16 {
		return wire.Port{}, false
	}
	for word := 0; word < len(bytes); word += 4 {
		binary.BigEndian.PutUint32(bytes[word:], binary.LittleEndian.Uint32(bytes[word:]))
	}
	return wire.Port{Port: int(port), Address: net.IP(bytes).String()}, true
}
