// Files through shared memory, which a plain file plays here, against a host that keeps to the rules or breaks them.

package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bhatti/agent/wire"
)

const sharedTestBytes = 8 * wire.WindowBytes

// sharing connects to an agent that shares a plain file with its host.
func sharing(t testing.TB) *host {
	t.Helper()
	h := personalised(t)
	h.agent.shared = sharedFile(t)
	h.write(hostPreamble(2))
	h.awaitPreambleOf(2)
	h.personalise()
	copy(h.agent.shared.mark(), hostNonce[:])
	return h
}

func sharedFile(t testing.TB) *sharedMemory {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "shared"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(sharedTestBytes); err != nil {
		t.Fatal(err)
	}
	shared, err := mapFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func (h *host) dataAt(stream uint32, place wire.Place) {
	h.t.Helper()
	h.write(wire.AppendDataAt(nil, stream, place))
}

// putAt sends bytes through a region, as far as the window allows, and the rest as credit comes.
func (h *host) putAt(stream uint32, base int, content []byte) {
	h.t.Helper()
	credit, at := wire.WindowBytes, 0
	for len(content) > 0 {
		n := len(content)
		for _, bound := range []int{wire.SharedPiece, credit, wire.WindowBytes - at} {
			if n > bound {
				n = bound
			}
		}
		if n == 0 {
			frame := h.frame(stream)
			if frame.Type != wire.Window {
				h.t.Fatalf("%d instead of credit: %s", frame.Type, frame.Payload)
			}
			credit += int(binary.BigEndian.Uint32(frame.Payload))
			continue
		}
		copy(h.agent.shared.bytes[base+at:], content[:n])
		h.dataAt(stream, wire.Place{Channel: wire.Stdin, Offset: base + at, Length: n})
		credit -= n
		at = (at + n) % wire.WindowBytes
		content = content[n:]
	}
}

// takeAt reads a stream whose output lies in a region; every piece must be where it is awaited.
func (h *host) takeAt(stream uint32, base int) (content []byte, last wire.Frame) {
	h.t.Helper()
	at := 0
	for {
		frame := h.frame(stream)
		switch frame.Type {
		case wire.DataAt:
			place, err := wire.ParseDataAt(frame.Payload)
			if err != nil || place.Offset != base+at || at+place.Length > wire.WindowBytes || place.Channel != wire.Stdout {
				h.t.Fatalf("%v, %v when %d was awaited", place, err, base+at)
			}
			content = append(content, h.agent.shared.bytes[place.Offset:place.Offset+place.Length]...)
			at = (at + place.Length) % wire.WindowBytes
			h.window(stream, place.Length)
		case wire.Data:
			h.t.Fatal("data outside of the region")
		case wire.Close:
			return content, frame
		}
	}
}

var sharedSizes = []int{
	0, 1, wire.SharedPiece - 1, wire.SharedPiece + 1, wire.WindowBytes, wire.WindowBytes + 1,
	directBytesMin - 1, directBytesMin, directBytesMin + 7, 3*directBytesMin + directBlockBytes, 3*directBytesMin + 5000,
}

func TestFilesAreWrittenThroughTheSharedMemory(t *testing.T) {
	h := sharing(t)
	for _, size := range sharedSizes {
		for _, announced := range []string{"null", strconv.Itoa(size)} {
			path, content := filepath.Join(t.TempDir(), "x"), patterned(size)
			stream := h.open(`{"op":"file_write","path":"` + path + `","size":` + announced + `}`)
			h.putAt(stream, wire.WindowBytes, content)
			h.send(wire.End, stream, []byte{wire.Stdin})
			if e := h.finish(stream); e.Error != nil {
				t.Fatalf("%d bytes: %v", size, e.Error)
			}
			if written, err := os.ReadFile(path); err != nil || !bytes.Equal(written, content) {
				t.Fatalf("%d bytes became %d others: %v", size, len(written), err)
			}
		}
	}
}

func TestSharedBytesComeBehindThoseBeforeThem(t *testing.T) {
	h := sharing(t)
	path := filepath.Join(t.TempDir(), "x")
	stream := h.open(`{"op":"file_write","path":"` + path + `"}`)
	h.data(stream, []byte("first "))
	h.putAt(stream, 0, []byte("second"))
	h.send(wire.End, stream, []byte{wire.Stdin})
	if e := h.finish(stream); e.Error != nil {
		t.Fatal(e.Error)
	}
	if written, _ := os.ReadFile(path); string(written) != "first second" {
		t.Fatalf("%q", written)
	}
}

func TestFilesAreReadThroughTheSharedMemory(t *testing.T) {
	h := sharing(t)
	base := 5 * wire.WindowBytes
	for _, size := range sharedSizes {
		path, content := filepath.Join(t.TempDir(), "x"), patterned(size)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		stream := h.open(`{"op":"file_read","path":"` + path + `","shared":` + strconv.Itoa(base) + `}`)
		if size < sharedBytesMin {
			if e := h.finish(stream); !bytes.Equal(e.stdout, content) {
				t.Fatalf("%d bytes became %d", size, len(e.stdout))
			}
			continue
		}
		got, last := h.takeAt(stream, base)
		if !bytes.Equal(got, content) || !strings.Contains(string(last.Payload), `"bytes":`+strconv.Itoa(size)) {
			t.Fatalf("%d bytes became %d: %s", size, len(got), last.Payload)
		}
	}
}

func TestArchivesGoThroughTheSharedMemory(t *testing.T) {
	h := sharing(t)
	base := 4 * wire.WindowBytes
	from, to := t.TempDir(), t.TempDir()
	content := patterned(3*wire.WindowBytes + 11)
	if err := os.WriteFile(filepath.Join(from, "x"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	stream := h.open(`{"op":"archive_read","path":"` + from + `/x","shared":` + strconv.Itoa(base) + `}`)
	packed, _ := h.takeAt(stream, base)
	if header, err := tar.NewReader(bytes.NewReader(packed)).Next(); err != nil || header.Name != "x" {
		t.Fatal(header, err)
	}
	stream = h.open(`{"op":"archive_write","path":"` + to + `"}`)
	h.putAt(stream, 0, packed)
	h.send(wire.End, stream, []byte{wire.Stdin})
	if e := h.finish(stream); e.Error != nil {
		t.Fatal(e.Error)
	}
	if written, err := os.ReadFile(filepath.Join(to, "x")); err != nil || !bytes.Equal(written, content) {
		t.Fatal("other bytes came out", err)
	}
}

// A copy of this machine has other memory, in the middle of whatever goes on.
func TestWhatCameThroughOtherMemoryIsNotTakenForGood(t *testing.T) {
	h := sharing(t)
	folder := t.TempDir()
	path, size := filepath.Join(folder, "x"), 2*directBytesMin
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, announced := range []string{"null", strconv.Itoa(size)} {
		stream := h.open(`{"op":"file_write","path":"` + path + `","size":` + announced + `}`)
		h.putAt(stream, 0, patterned(size))
		copy(h.agent.shared.mark(), make([]byte, len(hostNonce)))
		h.send(wire.End, stream, []byte{wire.Stdin})
		if e := h.finish(stream); e.Error == nil || e.Error.Code != wire.Unavailable {
			t.Fatal("it was taken for good", e.Error)
		}
		copy(h.agent.shared.mark(), hostNonce[:])
	}

	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	for _, name := range []string{"x", "y"} {
		if err := archive.WriteHeader(&tar.Header{Name: name, Size: 4, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		_, _ = archive.Write([]byte("new\n"))
	}
	_ = archive.Close()
	copy(h.agent.shared.mark(), make([]byte, len(hostNonce)))
	stream := h.open(`{"op":"archive_write","path":"` + folder + `"}`)
	h.putAt(stream, 0, packed.Bytes())
	h.send(wire.End, stream, []byte{wire.Stdin})
	if e := h.finish(stream); e.Error == nil || e.Error.Code != wire.Unavailable {
		t.Fatal("it was taken for good", e.Error)
	}
	if content, _ := os.ReadFile(path); string(content) != "old" {
		t.Fatalf("%q", content)
	}
}

func TestNothingInTheSharedMemoryIsOverwrittenWithoutCredit(t *testing.T) {
	h := sharing(t)
	path, content := filepath.Join(t.TempDir(), "x"), patterned(2*wire.WindowBytes)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	stream := h.open(`{"op":"file_read","path":"` + path + `","shared":0}`)
	for got := 0; got < wire.WindowBytes; {
		if frame := h.frame(stream); frame.Type == wire.DataAt {
			got += int(binary.BigEndian.Uint32(frame.Payload[5:]))
		}
	}
	h.finish(h.open(`{"op":"ping"}`))
	if !bytes.Equal(h.agent.shared.bytes[:wire.WindowBytes], content[:wire.WindowBytes]) {
		t.Fatal("the region was written to")
	}
	h.send(wire.Close, stream, nil)
	h.takeClose(stream)
}

func (h *host) takeClose(stream uint32) {
	h.t.Helper()
	for h.frame(stream).Type != wire.Close {
	}
}

func TestRegionsThatCannotBeUsedAreNot(t *testing.T) {
	h := sharing(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, patterned(2*wire.WindowBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	first := h.open(`{"op":"file_read","path":"` + path + `","shared":0}`)
	for h.frame(first).Type != wire.DataAt {
	}
	for _, shared := range []int{0, 1, -1, -wire.WindowBytes, sharedTestBytes - 1, sharedTestBytes - wire.WindowBytes, sharedTestBytes, 1 << 40} {
		stream := h.open(`{"op":"file_read","path":"` + path + `","shared":` + strconv.Itoa(shared) + `}`)
		if e := h.finish(stream); e.Error != nil || !bytes.Equal(e.stdout, patterned(2*wire.WindowBytes)) {
			t.Errorf("at %d: %v, %d bytes", shared, e.Error, len(e.stdout))
		}
	}
	h.send(wire.Close, first, nil)
	h.takeClose(first)
	again := h.open(`{"op":"file_read","path":"` + path + `","shared":0}`)
	if got, _ := h.takeAt(again, 0); !bytes.Equal(got, patterned(2*wire.WindowBytes)) {
		t.Error("the region is not free again")
	}
}

func TestAPieceOutsideOfTheSharedMemoryEndsTheConnection(t *testing.T) {
	for name, place := range map[string]wire.Place{
		"behind it":    {Offset: sharedTestBytes, Length: 1},
		"across it":    {Offset: sharedTestBytes - 1, Length: 2},
		"channel 3":    {Channel: 3, Length: 1},
		"empty":        {},
		"a large one":  {Length: wire.SharedPiece + 1},
		"far behind":   {Offset: 0xffffffff, Length: wire.SharedPiece},
		"large window": {Offset: 0, Length: wire.SharedPiece},
	} {
		h := sharing(t)
		path := filepath.Join(t.TempDir(), "x")
		stream := h.open(`{"op":"file_write","path":"` + path + `"}`)
		if name == "large window" {
			// No credit is given back, because the operation that would take it does not exist.
			stream = h.exec(map[string]any{"argv": []string{"sleep", "10"}, "stdin": true})
			for i := 0; i < wire.WindowBytes/wire.SharedPiece+4; i++ {
				h.dataAt(stream, place)
			}
		} else {
			h.dataAt(stream, place)
		}
		h.write(hostPreamble(2))
		h.awaitPreambleOf(2)
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutSharedMemoryTheFirstGenerationIsSpoken(t *testing.T) {
	h := connect(t)
	h.write(hostPreamble(9))
	h.awaitPreambleOf(1)
	h.personalise()
	stream := h.open(`{"op":"file_write","path":"` + filepath.Join(t.TempDir(), "x") + `"}`)
	h.dataAt(stream, wire.Place{Length: 1})
	h.write(hostPreamble(1))
	h.awaitPreambleOf(1)
}

func TestTheSharedMemoryIsFoundAmongTheDevices(t *testing.T) {
	devices := t.TempDir()
	make := func(name, vendor, device string) string {
		folder := filepath.Join(devices, name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"vendor": vendor, "device": device, "enable": "0\n"} {
			if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return folder
	}
	make("0000:00:01.0", "0x1af4\n", "0x1001\n")
	for _, folder := range []string{devices, filepath.Join(devices, "none")} {
		if shared, err := openShared(folder); shared != nil || err != nil {
			t.Fatal(shared, err)
		}
	}
	folder := make("0000:00:04.0", sharedVendor+"\n", sharedDevice+"\n")
	if _, err := openShared(devices); err == nil {
		t.Fatal("it has no memory")
	}
	content := patterned(2 * wire.WindowBytes)
	if err := os.WriteFile(filepath.Join(folder, "resource2"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	shared, err := openShared(devices)
	if err != nil || !bytes.Equal(shared.bytes, content) {
		t.Fatal(err)
	}
	if enabled, _ := os.ReadFile(filepath.Join(folder, "enable")); !strings.HasPrefix(string(enabled), "1") {
		t.Fatalf("enable is %q", enabled)
	}
}
