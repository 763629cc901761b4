// Files over the connection loop, in folders that are made for the test.

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// hardNames are names that a careless program gets wrong.
var hardNames = []string{"plain", "with space", "ünï€ode", "line\nbreak", "-rf", "--", "quote'\"\\", ".hidden", strings.Repeat("x", 255)}

// put uploads bytes in frames of the largest size, within the window.
func (h *host) put(op string, request map[string]any, content []byte) outcome {
	h.t.Helper()
	stream, room := h.start(op, request), wire.WindowBytes
	for rest := content; len(rest) > 0; {
		count := len(rest)
		if count > wire.DataBytesMax {
			count = wire.DataBytesMax
		}
		for room < count {
			frame := h.frame(stream)
			if frame.Type == wire.Close {
				h.queued[stream] = append([]wire.Frame{frame}, h.queued[stream]...)
				return h.end(stream)
			}
			room += int(frame.Payload[0])<<24 | int(frame.Payload[1])<<16 | int(frame.Payload[2])<<8 | int(frame.Payload[3])
		}
		h.data(stream, rest[:count])
		room -= count
		rest = rest[count:]
	}
	h.send(wire.End, stream, []byte{wire.Stdin})
	return h.end(stream)
}

func namesIn(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestFilesGoUpAndDown(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	content := bytes.Repeat([]byte("0123456789abcdef"), 100000)
	for i, name := range hardNames {
		path, sent := filepath.Join(folder, name), content[:i*200000%len(content)]
		if o := h.put("file_write", map[string]any{"path": path, "size": len(sent)}, sent); o.OK["bytes"] != float64(len(sent)) {
			t.Fatalf("%q: %+v %+v", name, o.OK, o.Error)
		}
		o := h.ask("file_read", map[string]any{"path": path})
		if !bytes.Equal(o.output, sent) || o.OK["bytes"] != float64(len(sent)) {
			t.Errorf("%q: %d bytes came back, %+v", name, len(o.output), o.Error)
		}
		file := o.messages[0]["file"].(map[string]any)
		if file["name"] != name || file["size"] != float64(len(sent)) || file["type"] != "file" || file["mode"] != "0644" {
			t.Errorf("%+v", file)
		}
	}
	if names := namesIn(t, folder); len(names) != len(hardNames) {
		t.Errorf("%q", names)
	}
	path := filepath.Join(folder, hardNames[3])
	if o := h.ask("file_read", map[string]any{"path": path, "offset": 5, "limit": 7}); string(o.output) != "56789ab" {
		t.Errorf("%q", o.output)
	}
}

func TestAChangedFileIsAnotherVersion(t *testing.T) {
	h := personalised(t)
	path := filepath.Join(t.TempDir(), "file")
	seen := map[any]string{}
	look := func(change string) {
		t.Helper()
		version := h.ask("file_stat", map[string]any{"path": path}).OK["file"].(map[string]any)["version"]
		read := h.ask("file_read", map[string]any{"path": path, "limit": 0})
		if len(read.output) != 0 || read.messages[0]["file"].(map[string]any)["version"] != version {
			t.Errorf("%s: %v %+v", change, version, read)
		}
		if former, isKnown := seen[version]; isKnown {
			t.Errorf("%s has the version of %s", change, former)
		}
		seen[version] = change
	}
	h.put("file_write", map[string]any{"path": path}, []byte("a"))
	look("the first one")
	h.put("file_write", map[string]any{"path": path}, []byte("b"))
	look("another of the same size")
	if os.WriteFile(path, []byte("cc"), 0) != nil || os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) != nil {
		t.Fatal("not written")
	}
	look("a longer one of an old time")
}

func TestWhatIsMadeBelongsToTheUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	h := personalised(t)
	folder := t.TempDir()
	path := filepath.Join(folder, "a/b/file")
	if o := h.put("file_write", map[string]any{"path": path, "parents": true, "mode": "0600"}, []byte("x")); o.OK == nil {
		t.Fatalf("%+v", o.Error)
	}
	owner := fileOwner()
	for _, made := range []string{"a", "a/b", "a/b/file"} {
		var about syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(folder, made), &about); err != nil || about.Uid != owner.uid || about.Gid != owner.gid {
			t.Errorf("%s: %d:%d %v", made, about.Uid, about.Gid, err)
		}
	}
	// The owner and mode of a file that is replaced stay.
	if err := os.Chown(path, 7, 8); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(path, 0o4711); err != nil {
		t.Fatal(err)
	}
	h.put("file_write", map[string]any{"path": path}, []byte("y"))
	var about syscall.Stat_t
	if err := syscall.Lstat(path, &about); err != nil || about.Uid != 7 || about.Gid != 8 || about.Mode&0o7777 != 0o4711 {
		t.Errorf("%d:%d %o %v", about.Uid, about.Gid, about.Mode, err)
	}
	h.put("file_write", map[string]any{"path": path, "mode": "640"}, []byte("z"))
	if err := syscall.Lstat(path, &about); err != nil || about.Uid != 7 || about.Mode&0o7777 != 0o640 {
		t.Errorf("%d %o %v", about.Uid, about.Mode, err)
	}
}

func TestAnUploadThatFailsLeavesNothing(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	if err := os.WriteFile(path, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	if o := h.put("file_write", map[string]any{"path": path, "size": 10}, []byte("short")); o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
	if o := h.put("file_write", map[string]any{"path": path, "size": 3}, []byte("too long")); o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
	given := h.start("file_write", map[string]any{"path": path})
	h.data(given, []byte("half"))
	h.send(wire.Close, given, nil)
	if o := h.end(given); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
	lost := h.start("file_write", map[string]any{"path": path})
	h.data(lost, []byte("half"))
	h = h.again()
	await(t, "nothing but the former file is there", func() bool {
		names := namesIn(t, folder)
		return len(names) == 1 && contentOf(t, path) == "before"
	})
	if o := h.ask("file_read", map[string]any{"path": path}); string(o.output) != "before" {
		t.Errorf("%+v", o)
	}
}

func TestAFileHasABound(t *testing.T) {
	h := personalised(t)
	path := filepath.Join(t.TempDir(), "file")
	if o := h.put("file_write", map[string]any{"path": path, "size": wire.FileBytesMax + 1}, nil); o.Error == nil || o.Error.Code != wire.TooLarge {
		t.Errorf("%+v", o)
	}
	if o := h.put("file_write", map[string]any{"path": path}, make([]byte, wire.FileBytesMax+1)); o.Error == nil || o.Error.Code != wire.TooLarge {
		t.Errorf("%+v", o.Error)
	}
	if names := namesIn(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("%q", names)
	}
}

func TestAReaderNeverSeesHalfAFile(t *testing.T) {
	h := personalised(t)
	path := filepath.Join(t.TempDir(), "file")
	old, young := bytes.Repeat([]byte("o"), 300000), bytes.Repeat([]byte("y"), 200000)
	h.put("file_write", map[string]any{"path": path}, old)
	stop, seen := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			content, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(content, old) && !bytes.Equal(content, young) {
				seen <- fmt.Errorf("%d bytes, %v", len(content), err)
				return
			}
			select {
			case <-stop:
				seen <- nil
				return
			default:
			}
		}
	}()
	for i := 0; i < 20; i++ {
		h.put("file_write", map[string]any{"path": path}, young)
		h.put("file_write", map[string]any{"path": path}, old)
	}
	close(stop)
	if err := <-seen; err != nil {
		t.Error(err)
	}
}

func TestAWriteFollowsLinks(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	for link, target := range map[string]string{"link": "sub/file", "dangling": "sub/new", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(folder+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "dangling"} {
		if o := h.put("file_write", map[string]any{"path": folder + "/" + name}, []byte(name)); o.OK == nil {
			t.Errorf("%+v", o.Error)
		}
	}
	if contentOf(t, folder, "sub/file") != "link" || contentOf(t, folder, "sub/new") != "dangling" {
		t.Error("the links' targets were not written")
	}
	if o := h.put("file_write", map[string]any{"path": folder + "/loop"}, nil); o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
}

func TestADirectoryIsListedInOrder(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	for _, name := range hardNames {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("x"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("some/target", folder+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder+"/bad\xffname", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := h.ask("file_list", map[string]any{"path": folder})
	entries := []map[string]any{}
	for _, message := range o.messages {
		for _, entry := range message["entries"].([]any) {
			entries = append(entries, entry.(map[string]any))
		}
	}
	want := namesIn(t, folder)
	if len(entries) != len(want) || o.OK["entries"] != float64(len(want)) || o.OK["truncated"] != false {
		t.Fatalf("%d entries, %+v", len(entries), o)
	}
	for i, entry := range entries {
		if entry["name"] != strings.ToValidUTF8(want[i], "\ufffd") {
			t.Errorf("%q, not %q", entry["name"], want[i])
		}
		if isLossy := entry["name_is_lossy"] == true; isLossy != strings.HasPrefix(want[i], "bad") {
			t.Errorf("%+v", entry)
		}
		if want[i] == "link" && (entry["type"] != "symlink" || entry["target"] != "some/target") {
			t.Errorf("%+v", entry)
		}
		if want[i] == "plain" && (entry["mode"] != "0640" || entry["owner"] != ownName || entry["type"] != "file") {
			t.Errorf("%+v", entry)
		}
	}
}

func TestALargeDirectoryIsListedWhole(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	const count = 5000
	for i := 0; i < count; i++ {
		if err := os.WriteFile(fmt.Sprintf("%s/%04d-%s", folder, i, strings.Repeat("n", 100)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := h.ask("file_list", map[string]any{"path": folder})
	listed := 0
	for _, message := range o.messages {
		listed += len(message["entries"].([]any))
	}
	if listed != count || len(o.messages) < 10 {
		t.Errorf("%d entries in %d messages", listed, len(o.messages))
	}
	if o := h.ask("file_list", map[string]any{"path": t.TempDir()}); o.OK["entries"] != 0.0 || len(o.messages) != 0 {
		t.Errorf("%+v", o)
	}
}

func TestNamesAreChanged(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	at := func(name string) string { return folder + "/" + name }
	steps := []struct {
		op      string
		request map[string]any
		code    wire.Code
	}{
		{"file_mkdir", map[string]any{"path": at("a/b/c")}, wire.NotFound},
		{"file_mkdir", map[string]any{"path": at("a/b/c"), "parents": true, "mode": "1777"}, ""},
		{"file_mkdir", map[string]any{"path": at("a/b/c"), "parents": true}, ""},
		{"file_mkdir", map[string]any{"path": at("a/b/c")}, wire.Conflict},
		{"file_mkdir", map[string]any{"path": at("x"), "mode": "999"}, wire.Invalid},
		{"file_remove", map[string]any{"path": at("a")}, wire.Conflict},
		{"file_remove", map[string]any{"path": at("missing")}, wire.NotFound},
		{"file_remove", map[string]any{"path": at("missing"), "recursive": true}, wire.NotFound},
		{"file_remove", map[string]any{"path": "/", "recursive": true}, wire.Invalid},
		{"file_remove", map[string]any{"path": at("a/.."), "recursive": true}, wire.Invalid},
		{"file_move", map[string]any{"from": at("missing"), "to": at("y")}, wire.NotFound},
		{"file_move", map[string]any{"from": at("a/b"), "to": at("no/such")}, wire.NotFound},
		{"file_move", map[string]any{"from": at("a/b"), "to": at("a/b/c")}, wire.Invalid},
		{"file_move", map[string]any{"from": at("a/b/c"), "to": at("a")}, ""},
		{"file_move", map[string]any{"from": at("a"), "to": at("-z")}, ""},
		{"file_stat", map[string]any{"path": at("-z/c")}, ""},
		{"file_stat", map[string]any{"path": at("-z/c/d")}, wire.NotFound},
		{"file_stat", map[string]any{"path": "a\x00b"}, wire.Invalid},
		{"file_stat", map[string]any{"path": ""}, wire.Invalid},
		{"file_stat", map[string]any{"path": 7}, wire.Invalid},
		{"file_list", map[string]any{"path": at("none")}, wire.NotFound},
		{"file_list", map[string]any{"path": "/etc/passwd"}, wire.Invalid},
		{"file_read", map[string]any{"path": folder}, wire.Invalid},
		{"file_read", map[string]any{"path": "/dev/zero"}, wire.Invalid},
		{"file_read", map[string]any{"path": at("none")}, wire.NotFound},
		{"file_read", map[string]any{"path": "/etc/passwd", "offset": -1}, wire.Invalid},
		{"file_write", map[string]any{"path": folder}, wire.Invalid},
		{"file_write", map[string]any{"path": at("new/")}, wire.Invalid},
		{"file_write", map[string]any{"path": "/dev/null"}, wire.Invalid},
		{"file_write", map[string]any{"path": at("none/file")}, wire.NotFound},
		{"file_write", map[string]any{"path": at("file"), "mode": "rwx"}, wire.Invalid},
		{"file_remove", map[string]any{"path": at("-z"), "recursive": true}, ""},
	}
	for _, s := range steps {
		o := h.ask(s.op, s.request)
		switch {
		case s.code == "" && o.OK == nil:
			t.Errorf("%s %v: %+v", s.op, s.request, o.Error)
		case s.code != "" && (o.Error == nil || o.Error.Code != s.code):
			t.Errorf("%s %v: %+v %+v", s.op, s.request, o.OK, o.Error)
		}
	}
	if names := namesIn(t, folder); len(names) != 0 {
		t.Errorf("%q", names)
	}
}

func TestWhereNothingCanBeMadeThatIsSaid(t *testing.T) {
	h := personalised(t)
	for _, path := range []string{"/proc/x", "/proc/x/y"} {
		o := h.ask("file_mkdir", map[string]any{"path": path, "parents": true})
		if o.Error == nil || o.Error.Code != wire.Forbidden || o.Error.Message != fmt.Sprintf("nothing can be created at %q", path) {
			t.Errorf("%+v", o.Error)
		}
	}
}

func TestAPipeIsNotWaitedFor(t *testing.T) {
	h := personalised(t)
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"file_read", "file_write"} {
		if o := h.ask(op, map[string]any{"path": path}); o.Error == nil || o.Error.Code != wire.Invalid {
			t.Errorf("%s: %+v", op, o)
		}
	}
}

func TestADownloadStopsAtTheWindowAndWhenItIsClosed(t *testing.T) {
	h := personalised(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	files := openFiles(t)
	stream := h.start("file_read", map[string]any{"path": path})
	h.frame(stream)
	for received := 0; received < wire.WindowBytes; {
		received += len(h.frame(stream).Payload) - 1
	}
	h.ask("file_stat", map[string]any{"path": path})
	if len(h.queued[stream]) != 0 {
		t.Errorf("%d frames above the window", len(h.queued[stream]))
	}
	h.send(wire.Close, stream, nil)
	if o := h.end(stream); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
	await(t, "the file is closed", func() bool { return openFiles(t) <= files })
}

// Whatever the guest's kernel refuses is no fault of this program.
func TestNoErrorOfTheKernelIsInternal(t *testing.T) {
	for number := syscall.Errno(1); number < 134; number++ {
		plain, wrapped := error(number), error(&os.PathError{Op: "read", Path: "/x", Err: number})
		for _, coded := range []*wire.Error{fileError("/x", plain), fileError("/x", wrapped), asError(plain), asError(wrapped)} {
			if coded.Code == wire.Internal || !strings.Contains(coded.Message, number.Error()) && coded.Code != wire.NotFound {
				t.Errorf("%d: %+v", number, coded)
			}
		}
	}
	h := personalised(t)
	if o := h.ask("file_read", map[string]any{"path": "/proc/self/mem"}); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
}
