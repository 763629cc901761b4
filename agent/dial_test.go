// Connections to programs that listen here, and the list of them.

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// listen serves each connection on a port of this machine.
func listen(t *testing.T, address string, serve func(*net.TCPConn)) int {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", address, err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn.(*net.TCPConn))
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func echo(conn *net.TCPConn) {
	_, _ = io.Copy(conn, conn)
	conn.Close()
}

func TestAConnectionEchoesWithItsHalves(t *testing.T) {
	h := personalised(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		port := listen(t, address, echo)
		content := bytes.Repeat([]byte("0123456789abcdef"), 12000)
		o := h.put("dial", map[string]any{"port": port}, content)
		if o.OK == nil || !bytes.Equal(o.output, content) || o.messages[0]["connected"] == nil {
			t.Errorf("%s: %d bytes, %+v", address, len(o.output), o.Error)
		}
	}
}

func TestTheOtherSideMayEndFirst(t *testing.T) {
	h := personalised(t)
	received := make(chan string, 1)
	port := listen(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte("greeting"))
		_ = conn.CloseWrite()
		rest, _ := io.ReadAll(conn)
		received <- string(rest)
		conn.Close()
	})
	stream := h.start("dial", map[string]any{"port": port})
	h.frame(stream)
	for frame := h.frame(stream); frame.Type != wire.End; frame = h.frame(stream) {
		if string(frame.Payload[1:]) != "greeting" {
			t.Errorf("%q", frame.Payload)
		}
	}
	h.data(stream, []byte("late words"))
	h.send(wire.End, stream, []byte{wire.Stdin})
	if o := h.end(stream); o.OK == nil || <-received != "late words" {
		t.Errorf("%+v", o)
	}
}

func TestCloseResetsTheConnection(t *testing.T) {
	h := personalised(t)
	result := make(chan error, 1)
	port := listen(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		_, err := io.ReadAll(conn)
		result <- err
	})
	stream := h.start("dial", map[string]any{"port": port})
	h.frame(stream)
	h.data(stream, []byte("x"))
	h.send(wire.Close, stream, nil)
	if o := h.end(stream); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v", err)
	}
}

func TestAResetOfTheOtherSideIsAnError(t *testing.T) {
	h := personalised(t)
	port := listen(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		var one [1]byte
		_, _ = conn.Read(one[:])
		_ = conn.SetLinger(0)
		conn.Close()
	})
	stream := h.start("dial", map[string]any{"port": port})
	h.frame(stream)
	h.data(stream, []byte("x"))
	if o := h.end(stream); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
}

func TestNothingListens(t *testing.T) {
	h := personalised(t)
	port := listen(t, "127.0.0.1:0", echo)
	for _, c := range []struct {
		port any
		code wire.Code
	}{{0, wire.Invalid}, {65536, wire.Invalid}, {"80", wire.Invalid}, {1, wire.Unavailable}} {
		if o := h.ask("dial", map[string]any{"port": c.port}); o.Error == nil || o.Error.Code != c.code {
			t.Errorf("%v: %+v", c.port, o)
		}
	}
	if o := h.put("dial", map[string]any{"port": port}, []byte("still")); string(o.output) != "still" {
		t.Errorf("%+v", o)
	}
}

func TestASlowSideOfAConnectionDelaysNobody(t *testing.T) {
	h := personalised(t)
	flood := listen(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		for {
			if _, err := conn.Write(make([]byte, 65536)); err != nil {
				return
			}
		}
	})
	deaf := listen(t, "127.0.0.1:0", func(conn *net.TCPConn) { time.Sleep(deadline) })
	unread, unheard := h.start("dial", map[string]any{"port": flood}), h.start("dial", map[string]any{"port": deaf})
	for sent := 0; sent < wire.WindowBytes; sent += wire.DataBytesMax {
		h.data(unheard, make([]byte, wire.DataBytesMax))
	}
	port := listen(t, "127.0.0.1:0", echo)
	for i := 0; i < 5; i++ {
		if o := h.put("dial", map[string]any{"port": port}, []byte("quick")); string(o.output) != "quick" {
			t.Fatalf("%+v", o)
		}
	}
	for _, stream := range []uint32{unread, unheard} {
		h.send(wire.Close, stream, nil)
		if o := h.end(stream); o.Error == nil {
			t.Errorf("%+v", o)
		}
	}
}

func TestConnectionsLeaveNothing(t *testing.T) {
	h := personalised(t)
	port := listen(t, "127.0.0.1:0", echo)
	h.put("dial", map[string]any{"port": port}, nil)
	await(t, "the first is gone", func() bool { return runtime.NumGoroutine() < 1000 })
	files, routines := openFiles(t), runtime.NumGoroutine()
	streams := []uint32{}
	for i := 0; i < 100; i++ {
		stream := h.start("dial", map[string]any{"port": port})
		h.data(stream, []byte("x"))
		streams = append(streams, stream)
	}
	for i, stream := range streams {
		if i%2 == 0 {
			h.send(wire.Close, stream, nil)
		} else {
			h.send(wire.End, stream, []byte{wire.Stdin})
		}
		h.end(stream)
	}
	await(t, "files and goroutines are given back", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= routines
	})
	for i := 0; i < 20; i++ {
		h.frame(h.start("dial", map[string]any{"port": port}))
	}
	h.again()
	await(t, "a lost connection gives them back as well", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= routines
	})
}

func TestListeningPortsAreListed(t *testing.T) {
	h := personalised(t)
	port := listen(t, "127.0.0.1:0", echo)
	o := h.ask("ports", nil)
	isFound := false
	for _, entry := range o.OK["ports"].([]any) {
		p := entry.(map[string]any)
		isFound = isFound || p["port"] == float64(port) && p["address"] == "127.0.0.1"
	}
	if !isFound {
		t.Errorf("%d is not in %+v", port, o.OK)
	}
}

func TestThePortTableIsRead(t *testing.T) {
	folder := t.TempDir()
	v4 := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: junk 0A 0A 0A
`
	v6 := `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A
   1: 0000000000000000FFFF00000100007F:0016 00000000000000000000000000000000:0000 0A
   2: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A
`
	for name, table := range map[string]string{"tcp": v4, "tcp6": v6} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := fmt.Sprint(listPorts(folder+"/tcp", folder+"/tcp6", folder+"/none"))
	want := "[{22 127.0.0.1} {80 0.0.0.0} {443 2001:db8::1} {3000 127.0.0.1} {3000 ::1}]"
	if got != want {
		t.Errorf("%s", got)
	}
}
