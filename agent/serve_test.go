// The agent for tests in another language, and for bytes that no host would send.

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// socketVariable names the unix socket on which a build of these tests serves one connection after the other.
const socketVariable = "LOHAR_TEST_SOCKET"

// sharedVariable names the file that plays the memory which is shared with the host.
const sharedVariable = "LOHAR_TEST_SHARED"

func TestServeOnSocket(t *testing.T) {
	path := os.Getenv(socketVariable)
	if path == "" {
		t.Skip(socketVariable + " is not set: no other program wants to be served")
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := testAgent()
	if path := os.Getenv(sharedVariable); path != "" {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if a.shared, err = mapFile(file); err != nil {
			t.Fatal(err)
		}
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = a.serve(conn)
		conn.Close()
	}
}

// FuzzServer feeds a connection with any bytes. The agent must neither crash nor stop answering the next host, and
// no program may be started: the bytes may well ask for one.
func FuzzServer(f *testing.F) {
	ping := wire.AppendFrame(nil, wire.Frame{Type: wire.Open, Stream: 1, Payload: []byte(`{"op":"ping"}`)})
	exec := wire.AppendFrame(nil, wire.Frame{Type: wire.Open, Stream: 2, Payload: []byte(`{"op":"exec","argv":["x"]}`)})
	f.Add([]byte("junk"))
	f.Add(append(hostPreamble(1), ping...))
	f.Add(append(append(hostPreamble(1), exec...), hostPreamble(2)...))
	f.Add(append(append(hostPreamble(1), ping...), ping...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		ours, theirs := net.Pipe()
		a := testAgent()
		a.machine.personalise = func(wire.Personalise) (wire.Personalised, error) {
			return wire.Personalised{}, wire.Errorf(wire.Internal, "refused")
		}
		served := make(chan error, 1)
		go func() { served <- a.serve(theirs) }()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			want := wire.AppendGuestPreamble(nil, wire.Preamble{Nonce: hostNonce, Generation: 1})
			var seen []byte
			buffer := make([]byte, 4096)
			for !bytes.Contains(seen, want) {
				n, err := ours.Read(buffer)
				if err != nil {
					return
				}
				seen = append(seen[max(0, len(seen)-len(want)):], buffer[:n]...)
			}
			_, _ = io.Copy(io.Discard, ours)
		}()
		_ = ours.SetDeadline(time.Now().Add(deadline))
		for _, bytes := range [][]byte{stream, make([]byte, wire.FrameBytesMax), hostPreamble(1)} {
			if _, err := ours.Write(bytes); err != nil {
				t.Fatalf("the agent does not read: %v", err)
			}
		}
		ours.Write(ping)
		ours.Close()
		<-answered
		if err := <-served; err != io.EOF {
			t.Fatalf("it ended with %v", err)
		}
	})
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}
