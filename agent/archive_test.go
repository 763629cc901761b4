// Archives: what goes in comes out, and nothing leaves its directory.

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

type entry struct {
	name, link string
	kind       byte
	mode       int64
	content    string
}

func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, e := range entries {
		header := &tar.Header{
			Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.content)), ModTime: time.Unix(1e9, 0),
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// describeTree lists what is below a folder, contents and all.
func describeTree(t testing.TB, folder string) string {
	t.Helper()
	lines := []string{}
	err := filepath.Walk(folder, func(path string, about os.FileInfo, err error) error {
		if err != nil || path == folder {
			return err
		}
		name, _ := filepath.Rel(folder, path)
		stat := about.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v", name, about.Mode())
		switch {
		case about.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d links %q %d", stat.Nlink, content, about.ModTime().Unix())
		case about.Mode()&os.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestADirectoryComesBackAsItWas(t *testing.T) {
	h := personalised(t)
	from, to := t.TempDir()+"/tree", t.TempDir()
	deep := from + "/" + strings.Repeat("deep/", 40)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, name := range hardNames {
		if err := os.WriteFile(filepath.Join(from, name), bytes.Repeat([]byte(name), i*1000), os.FileMode(0o600+i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(deep+"/leaf", []byte("leaf"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(from+"/empty", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(from+"/plain", from+"/zzz"); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"out": "/etc/passwd", "in": "plain", "dangling": "no/where"} {
		if err := os.Symlink(target, from+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(from+"/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	down := h.ask("archive_read", map[string]any{"path": from})
	if down.OK == nil {
		t.Fatalf("%+v", down.Error)
	}
	up := h.put("archive_write", map[string]any{"path": to + "/new/place"}, down.output)
	if up.OK["entries"] != down.OK["entries"] {
		t.Errorf("%+v %+v, %+v", up.OK, up.Error, down.OK)
	}
	if err := os.Remove(from + "/pipe"); err != nil {
		t.Fatal(err)
	}
	want, got := describeTree(t, from), describeTree(t, to+"/new/place/tree")
	if want != got {
		t.Errorf("before:\n%s\nafter:\n%s", want, got)
	}
	// Unpacking over what is there changes nothing.
	h.put("archive_write", map[string]any{"path": to + "/new/place"}, down.output)
	if again := describeTree(t, to+"/new/place/tree"); again != want {
		t.Errorf("the second time:\n%s", again)
	}
	if tarProgram, err := exec.LookPath("tar"); err == nil {
		list := exec.Command(tarProgram, "-tf", "-")
		list.Stdin = bytes.NewReader(down.output)
		if out, err := list.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "tree/\n") {
			t.Errorf("%s %v", out, err)
		}
	}
}

// A build copies files from one guest to another: owners, capabilities and all, under the name of its instruction.
func TestAnExactArchiveKeepsOwnersAndCapabilitiesUnderAnotherName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	h := personalised(t)
	from, to := t.TempDir()+"/tree", t.TempDir()
	if err := os.MkdirAll(from+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	program := from + "/sub/program"
	if err := os.WriteFile(program, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(program, from+"/second"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub", from+"/link"); err != nil {
		t.Fatal(err)
	}
	for path, id := range map[string]int{program: 12, from + "/sub": 13, from + "/link": 14} {
		if err := os.Lchown(path, id, id+100); err != nil {
			t.Fatal(err)
		}
	}
	// cap_net_raw+ep, with bytes that are no text.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	fd, err := syscall.Open(program, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := setAttribute(fd, "security.capability", capability); err != nil {
		t.Skipf("this file system has no capabilities: %v", err)
	}
	down := h.ask("archive_read", map[string]any{"path": from, "exact": true})
	up := h.put("archive_write", map[string]any{"path": to, "exact": true, "root": ""}, down.output)
	if up.OK == nil {
		t.Fatalf("%+v", up.Error)
	}
	if want, got := describeTree(t, from), describeTree(t, to); want != got {
		t.Errorf("before:\n%s\nafter:\n%s", want, got)
	}
	for path, id := range map[string]uint32{"sub/program": 12, "second": 12, "sub": 13, "link": 14} {
		var about syscall.Stat_t
		if err := syscall.Lstat(to+"/"+path, &about); err != nil || about.Uid != id || about.Gid != id+100 {
			t.Errorf("%s: %d:%d %v", path, about.Uid, about.Gid, err)
		}
	}
	copied, err := syscall.Open(to+"/sub/program", syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(copied)
	if got := attributesOf(copied, isFileAttribute)["security.capability"]; !bytes.Equal(got, capability) {
		t.Errorf("capability %v", got)
	}
	// Without it the owner is the request's, and the archive's root keeps its name.
	h.put("archive_write", map[string]any{"path": to, "root": "named", "owner": map[string]any{"uid": 7, "gid": 8}}, down.output)
	var about syscall.Stat_t
	if err := syscall.Lstat(to+"/named/sub/program", &about); err != nil || about.Uid != 7 || about.Gid != 8 {
		t.Errorf("named: %d:%d %v", about.Uid, about.Gid, err)
	}
}

// unpackedText reads an archive: the contents of its files, and what it says is missing.
func unpackedText(t *testing.T, packed []byte) (files map[string]string, missing wire.LeftOut) {
	t.Helper()
	files = map[string]string{}
	archive := tar.NewReader(bytes.NewReader(packed))
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return files, missing
		}
		if err != nil {
			t.Fatal(err)
		}
		if comment := header.PAXRecords["comment"]; comment != "" {
			if err := wire.Decode([]byte(comment), &missing); err != nil {
				t.Fatal(err)
			}
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(content)
	}
}

// The kernel says that its own files are empty.
func TestFilesOfTheKernelArePackedWithTheirContentAndWhatCannotBeReadIsTold(t *testing.T) {
	h := personalised(t)
	packed := h.ask("archive_read", map[string]any{"path": "/proc/sys/net/ipv4/route"})
	if packed.OK == nil {
		t.Fatalf("%+v", packed.Error)
	}
	files, missing := unpackedText(t, packed.output)
	want, err := os.ReadFile("/proc/sys/net/ipv4/route/gc_timeout")
	if err != nil {
		t.Skip("this kernel has no IPv4 routing settings to read:", err)
	}
	if got := files["route/gc_timeout"]; got != string(want) {
		t.Errorf("%q, not %q", got, want)
	}
	if missing.Count != 1 || len(missing.Names) != 1 || missing.Names[0].Name != "route/flush" || missing.Names[0].Reason == "" {
		t.Errorf("%+v", missing)
	}
	if o := h.ask("archive_read", map[string]any{"path": "/proc/sys/net/ipv4/route/flush"}); o.Error == nil || o.Error.Code != wire.Forbidden {
		t.Errorf("%+v", o)
	}
	if o := h.ask("file_read", map[string]any{"path": "/sys/kernel/mm/transparent_hugepage/enabled"}); o.Error != nil && o.Error.Code != wire.NotFound {
		t.Errorf("a file shorter than the kernel says: %+v", o.Error)
	}
}

func TestWhatMeansNothingElsewhereIsTold(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	const pipes = wire.LeftOutNamesMax + 3
	for i := 0; i < pipes; i++ {
		if err := syscall.Mkfifo(fmt.Sprintf("%s/pipe%02d", folder, i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, missing := unpackedText(t, h.ask("archive_read", map[string]any{"path": folder}).output)
	if missing.Count != pipes || len(missing.Names) != wire.LeftOutNamesMax {
		t.Errorf("%d, %d named", missing.Count, len(missing.Names))
	}
}

func TestASingleFileIsAnArchive(t *testing.T) {
	h := personalised(t)
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := h.ask("archive_read", map[string]any{"path": path})
	header, err := tar.NewReader(bytes.NewReader(o.output)).Next()
	if err != nil || header.Name != "file" || header.Size != 7 || o.OK["entries"] != 1.0 || o.OK["bytes"] != 7.0 {
		t.Errorf("%+v %v %+v", header, err, o.OK)
	}
	if o := h.ask("archive_read", map[string]any{"path": path + "x"}); o.Error == nil || o.Error.Code != wire.NotFound {
		t.Errorf("%+v", o)
	}
}

func TestWhatOtherProgramsPackIsUnpacked(t *testing.T) {
	program, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar on this machine")
	}
	h := personalised(t)
	from := t.TempDir()
	sparse, err := os.Create(from + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	sparse.WriteAt([]byte("end"), 5<<20)
	sparse.Close()
	long := from + "/" + strings.Repeat("directory/", 30)
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(long+strings.Repeat("f", 200), []byte("long"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax"} {
		packed, err := exec.Command(program, "--format="+format, "-S", "-C", from, "-cf", "-", ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		if o := h.put("archive_write", map[string]any{"path": to}, packed); o.OK == nil {
			t.Fatalf("%s: %+v", format, o.Error)
		}
		if diff, err := exec.Command("diff", "-r", from, to).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", format, diff)
		}
	}
}

func TestNothingLeavesItsDirectory(t *testing.T) {
	for name, entries := range map[string][]entry{
		"up":                     {{name: "../escaped", kind: tar.TypeReg, content: "x"}},
		"up in the middle":       {{name: "a/../../escaped", kind: tar.TypeReg, content: "x"}},
		"absolute":               {{name: "OUTSIDE/escaped", kind: tar.TypeReg, content: "x"}},
		"a link to the outside":  {{name: "l", link: "OUTSIDE", kind: tar.TypeSymlink}, {name: "l/escaped", kind: tar.TypeReg, content: "x"}},
		"a link upwards":         {{name: "l", link: "..", kind: tar.TypeSymlink}, {name: "l/escaped", kind: tar.TypeReg, content: "x"}},
		"a link to a link":       {{name: "a", link: "..", kind: tar.TypeSymlink}, {name: "b", link: "a", kind: tar.TypeSymlink}, {name: "b/escaped", kind: tar.TypeReg}},
		"a directory in a link":  {{name: "l", link: "OUTSIDE", kind: tar.TypeSymlink}, {name: "l/escaped", kind: tar.TypeDir}},
		"a path in a link":       {{name: "l", link: "OUTSIDE", kind: tar.TypeSymlink}, {name: "l/escaped/deeper/file", kind: tar.TypeReg}},
		"a hard link from above": {{name: "h", link: "../secret", kind: tar.TypeLink}},
		"an absolute hard link":  {{name: "h", link: "OUTSIDE/secret", kind: tar.TypeLink}},
		"a hard link by a link":  {{name: "l", link: "OUTSIDE", kind: tar.TypeSymlink}, {name: "h", link: "l/secret", kind: tar.TypeLink}},
		"a hard link in a link":  {{name: "f", kind: tar.TypeReg}, {name: "l", link: "OUTSIDE", kind: tar.TypeSymlink}, {name: "l/escaped", link: "f", kind: tar.TypeLink}},
		"a process's directory":  {{name: "l", link: "/proc/self/cwd", kind: tar.TypeSymlink}, {name: "l/escaped", kind: tar.TypeReg}},
		"what was there before":  {{name: "existing/escaped", kind: tar.TypeReg, content: "x"}},
		"a symlink in a symlink": {{name: "l", link: "OUTSIDE", kind: tar.TypeSymlink}, {name: "l/escaped", link: "x", kind: tar.TypeSymlink}},
		"a hard link to nothing": {{name: "h", link: "", kind: tar.TypeLink}},
	} {
		h := personalised(t)
		outside := t.TempDir()
		inside := outside + "/inside"
		if err := os.MkdirAll(inside, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(outside+"/secret", []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, inside+"/existing"); err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			entries[i].name = strings.ReplaceAll(entries[i].name, "OUTSIDE", outside)
			entries[i].link = strings.ReplaceAll(entries[i].link, "OUTSIDE", outside)
		}
		o := h.put("archive_write", map[string]any{"path": inside}, archiveOf(t, entries...))
		if o.Error == nil || o.Error.Code != wire.Invalid {
			t.Errorf("%s: %+v %+v", name, o.OK, o.Error)
		}
		if names := namesIn(t, outside); len(names) != 2 || contentOf(t, outside, "secret") != "secret" {
			t.Errorf("%s: %q", name, names)
		}
		if about, err := os.Stat(outside + "/secret"); err != nil || about.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("%s: the secret has another name", name)
		}
	}
}

func TestLinksAreReplacedAndNotWrittenThrough(t *testing.T) {
	h := personalised(t)
	outside, inside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(outside+"/secret", []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "folder"} {
		if err := os.Symlink(outside+"/secret", inside+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(inside+"/real", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", inside+"/within"); err != nil {
		t.Fatal(err)
	}
	o := h.put("archive_write", map[string]any{"path": inside}, archiveOf(t,
		entry{name: "file", kind: tar.TypeReg, mode: 0o644, content: "mine"},
		entry{name: "folder", kind: tar.TypeDir, mode: 0o755},
		entry{name: "within/file", kind: tar.TypeReg, mode: 0o644, content: "below"},
		entry{name: "null", kind: tar.TypeChar, mode: 0o666},
		entry{name: "pipe", kind: tar.TypeFifo, mode: 0o666},
	))
	if o.OK["entries"] != 3.0 {
		t.Errorf("%+v %+v", o.OK, o.Error)
	}
	if contentOf(t, outside, "secret") != "secret" || contentOf(t, inside, "file") != "mine" || contentOf(t, inside, "real/file") != "below" {
		t.Error(describeTree(t, inside))
	}
	if names := namesIn(t, inside); strings.Join(names, " ") != "file folder real within" {
		t.Errorf("%q", names)
	}
	o = h.put("archive_write", map[string]any{"path": inside}, archiveOf(t, entry{name: "real", kind: tar.TypeReg, content: "x"}))
	if o.Error == nil || o.Error.Code != wire.Conflict {
		t.Errorf("%+v", o)
	}
}

func TestABrokenArchiveLeavesNoHalfFile(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	whole := archiveOf(t,
		entry{name: "first", kind: tar.TypeReg, mode: 0o644, content: "one"},
		entry{name: "second", kind: tar.TypeReg, mode: 0o644, content: strings.Repeat("2", 100000)})
	if o := h.put("archive_write", map[string]any{"path": folder}, whole[:len(whole)-50000]); o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
	if names := namesIn(t, folder); len(names) != 1 || names[0] != "first" {
		t.Errorf("%q", names)
	}
	stream := h.start("archive_write", map[string]any{"path": folder})
	h.data(stream, whole[:3000])
	h.send(wire.Close, stream, nil)
	if o := h.end(stream); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
	if names := namesIn(t, folder); len(names) != 1 {
		t.Errorf("%q", names)
	}
	if o := h.put("archive_write", map[string]any{"path": folder}, []byte("this is no archive"+strings.Repeat(".", 600))); o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
	if o := h.put("archive_write", map[string]any{"path": folder}, nil); o.OK["entries"] != 0.0 {
		t.Errorf("%+v", o)
	}
}

// A file that an archive replaces keeps its name and content until the new one is complete.
func TestAnArchiveThatBreaksOffLeavesWhatWasThere(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	if err := os.WriteFile(folder+"/file", []byte("before"), 0o444); err != nil {
		t.Fatal(err)
	}
	packed := func(name string) []byte {
		return archiveOf(t, entry{name: name, kind: tar.TypeReg, mode: 0o600, content: strings.Repeat("x", 300000)})
	}
	before := describeTree(t, folder)
	half := func(content []byte) uint32 {
		stream := h.start("archive_write", map[string]any{"path": folder})
		for i := 0; i < 6; i++ {
			h.data(stream, content[i*wire.DataBytesMax:(i+1)*wire.DataBytesMax])
		}
		// Room comes back for what is written.
		for h.frame(stream).Type != wire.Window {
		}
		return stream
	}
	stream := half(packed("file"))
	if now := describeTree(t, folder); now != before {
		t.Errorf("in between:\n%s", now)
	}
	h.send(wire.Close, stream, nil)
	if o := h.end(stream); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
	if now := describeTree(t, folder); now != before {
		t.Errorf("given up:\n%s", now)
	}
	half(packed("young"))
	h = h.again()
	await(t, "the lost one to be cleaned up", func() bool { return describeTree(t, folder) == before })
	h.put("archive_write", map[string]any{"path": folder}, archiveOf(t, entry{name: "file", link: "missing", kind: tar.TypeLink}))
	if now := describeTree(t, folder); now != before {
		t.Errorf("a link to nothing:\n%s", now)
	}
	h.put("archive_write", map[string]any{"path": folder}, packed("file"))
	if now := describeTree(t, folder); !strings.HasPrefix(now, "file -rw------- 1 links") {
		t.Errorf("in the end:\n%s", now)
	}
}

// A name may come twice, as a link to a file that has it already, or in place of another kind.
func TestLinksReplaceWhatIsThere(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	for _, name := range []string{"one", "two", "soft"} {
		if err := os.WriteFile(folder+"/"+name, []byte("before"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	packed := archiveOf(t,
		entry{name: "one", kind: tar.TypeReg, mode: 0o644, content: "first"},
		entry{name: "one", kind: tar.TypeReg, mode: 0o644, content: "again"},
		entry{name: "two", link: "one", kind: tar.TypeLink},
		entry{name: "two", link: "two", kind: tar.TypeLink},
		entry{name: "soft", link: "one", kind: tar.TypeSymlink})
	want := `one -rw-r--r-- 2 links "again" 1000000000` + "\nsoft Lrwxrwxrwx -> one\n" + `two -rw-r--r-- 2 links "again" 1000000000`
	for i := 0; i < 2; i++ {
		if o := h.put("archive_write", map[string]any{"path": folder}, packed); o.OK["entries"] != 5.0 {
			t.Errorf("%+v", o)
		}
		if now := describeTree(t, folder); now != want {
			t.Errorf("%s", now)
		}
	}
	if err := os.Mkdir(folder+"/folder", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{
		{name: "folder", link: "one", kind: tar.TypeLink},
		{name: "folder", link: "one", kind: tar.TypeSymlink},
		{name: "folder", kind: tar.TypeReg, content: "x"},
	} {
		o := h.put("archive_write", map[string]any{"path": folder}, archiveOf(t, e))
		if o.Error == nil || o.Error.Code != wire.Conflict {
			t.Errorf("%+v", o)
		}
	}
	if names := strings.Join(namesIn(t, folder), " "); names != "folder one soft two" {
		t.Errorf("%q", names)
	}
}

// A program in the guest may move links about while an archive is unpacked.
func TestLinksThatMoveMeanwhileLeadNowhere(t *testing.T) {
	h := personalised(t)
	outside, inside := t.TempDir(), t.TempDir()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(inside+"/a/b", inside+"/a/c")
			_ = os.Symlink(outside, inside+"/a/b")
			_ = os.Remove(inside + "/a/b")
			_ = os.Rename(inside+"/a/c", inside+"/a/b")
		}
	}()
	packed := archiveOf(t, entry{name: "a/b", kind: tar.TypeDir, mode: 0o755}, entry{name: "a/b/file", kind: tar.TypeReg, content: "x"},
		entry{name: "a/b/deep/file", kind: tar.TypeReg, content: "x"}, entry{name: "a/b/link", link: "x", kind: tar.TypeSymlink})
	for i := 0; i < 300; i++ {
		h.put("archive_write", map[string]any{"path": inside}, packed)
	}
	close(stop)
	<-stopped
	if names := namesIn(t, outside); len(names) != 0 {
		t.Errorf("%q", names)
	}
}

// FuzzUnpack gives any bytes to the unpacker, in a directory with links that lead outside.
func FuzzUnpack(f *testing.F) {
	f.Add(archiveOf(f, entry{name: "a/b", kind: tar.TypeReg, content: "x"}, entry{name: "out/x", kind: tar.TypeReg, content: "y"}))
	f.Add(archiveOf(f, entry{name: "l", link: "..", kind: tar.TypeSymlink}, entry{name: "l/x", kind: tar.TypeDir}))
	f.Add(archiveOf(f, entry{name: "a", kind: tar.TypeReg, content: "x"}, entry{name: "h", link: "out/secret", kind: tar.TypeLink}))
	f.Fuzz(func(t *testing.T, packed []byte) {
		outside := t.TempDir()
		inside := outside + "/inside"
		for _, err := range []error{
			os.Mkdir(inside, 0o755), os.WriteFile(outside+"/secret", []byte("secret"), 0o600), os.Symlink("..", inside+"/out"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		root, err := syscall.Open(inside, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		s := newStream(nil, 1)
		u := unpacker{stream: s, owner: account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, root: root, parent: -1}
		// A sparse file may claim any size, and reading its hole takes its time.
		timer := time.AfterFunc(100*time.Millisecond, s.cancel)
		_ = u.unpack(bytes.NewReader(packed))
		timer.Stop()
		u.leaveParent()
		syscall.Close(root)
		if names := namesIn(t, outside); len(names) != 2 {
			t.Fatalf("%q", names)
		}
		var about syscall.Stat_t
		if err := syscall.Lstat(outside+"/secret", &about); err != nil || about.Nlink != 1 || about.Size != 6 || about.Mode&0o7777 != 0o600 {
			t.Fatalf("%+v %v", about, err)
		}
	})
}

// FuzzRequests starts every operation that takes a path or a name with any bytes. Nothing may crash, and each is
// answered. Paths are made to lead into an empty folder.
func FuzzRequests(f *testing.F) {
	for _, request := range []string{
		`{"path":"x","recursive":true}`, `{"path":"x","mode":"0644","parents":true,"size":3}`, `{"from":"a","to":"b"}`,
		`{"session":"s1","signal":"HUP"}`, `{"session":null}`, `{"port":0}`, `{"path":"x","offset":9223372036854775807,"limit":-1}`, `7`,
	} {
		f.Add(request)
	}
	operationsWithoutEffect := []string{"file_read", "file_stat", "file_list", "session_attach", "session_kill", "sessions", "archive_read"}
	f.Fuzz(func(t *testing.T, request string) {
		if strings.ContainsAny(request, `/\`) {
			t.Skip("a path with a separator may exist, and these operations are asked about missing files only")
		}
		h := personalised(t)
		for _, op := range operationsWithoutEffect {
			operation := findOperation(op)
			s := newStream(&connection{agent: h.agent, port: discardPort{}}, 1)
			s.connection.streams = append(s.connection.streams, s)
			operation.start(h.agent, s, []byte(request))
			await(t, op+" is answered", func() bool {
				s.connection.mu.Lock()
				defer s.connection.mu.Unlock()
				return len(s.connection.streams) == 0
			})
		}
	})
}

// discardPort takes whatever is written.
type discardPort struct{}

func (discardPort) Read([]byte) (int, error)         { return 0, io.EOF }
func (discardPort) Write(bytes []byte) (int, error)  { return len(bytes), nil }
func (discardPort) SetWriteDeadline(time.Time) error { return nil }

func TestAFileThatBecomesShorterIsTold(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	const size = 8 << 20
	path := filepath.Join(folder, "shrinks")
	for _, op := range []string{"file_read", "archive_read"} {
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "z"), []byte("behind it"), 0o600); err != nil {
			t.Fatal(err)
		}
		asked := path
		if op == "archive_read" {
			asked = folder
		}
		stream := h.start(op, map[string]any{"path": asked})
		// Its first bytes are here, and a window is far smaller than the file.
		for first := h.frame(stream); first.Type != wire.Data; first = h.frame(stream) {
		}
		if err := os.Truncate(path, 1000); err != nil {
			t.Fatal(err)
		}
		e := h.finish(stream)
		if e.Error == nil || e.Error.Code != wire.Conflict {
			t.Errorf("%s: %v", op, e.Error)
		}
	}
}
