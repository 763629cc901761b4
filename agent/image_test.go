// Users, directories and variables of images of others, and what is kept of their /run.

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"bhatti/agent/wire"
)

// withImage lets commands run as in an image with that configuration.
func withImage(t *testing.T, image wire.Image) {
	t.Helper()
	theImage.Store(&image)
	t.Cleanup(func() { theImage.Store(nil) })
}

func TestIdsNeedNoEntryAndANameThatIsUnknownIsNeverRoot(t *testing.T) {
	root := testRoot(t, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nann:x:1001:1001::/home/ann:/bin/ash\n",
		"etc/group":  "root:x:0:\nann:x:1001:\nvideo:x:44:ann\n",
	})
	ann := account{name: "ann", uid: 1001, gid: 1001, groups: []uint32{1001, 44}, home: "/home/ann", shell: "/bin/ash"}
	inVideo := ann
	inVideo.gid, inVideo.groups = 44, []uint32{44}
	nameless := func(name string, uid, gid uint32) account {
		return account{name: name, uid: uid, gid: gid, groups: []uint32{gid}, home: "/", isNameless: true}
	}
	for wanted, want := range map[string]account{
		"ann": ann, "1001": ann, "ann:video": inVideo, "1001:44": inVideo,
		"4000": nameless("4000", 4000, 0), "4000:50": nameless("4000", 4000, 50), "4000:video": nameless("4000", 4000, 44),
	} {
		if got, err := commandAccount(filepath.Join(root, "etc"), wanted); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v", wanted, got, err)
		}
	}
	for _, wanted := range []string{"bob", "bob:video", "ann:bob", "ann:", "4294967295", "-1", "99999999999"} {
		got, err := commandAccount(filepath.Join(root, "etc"), wanted)
		if coded := asError(err); err == nil || coded.Reason != wire.NoUser {
			t.Errorf("%s: %+v %v", wanted, got, err)
		}
	}
}

func TestAnImageWithoutAnEtcHasRoot(t *testing.T) {
	for _, wanted := range []string{"", "0", "root", "0:0"} {
		who, err := commandAccount(filepath.Join(t.TempDir(), "etc"), wanted)
		if err != nil || who.uid != 0 || who.gid != 0 || who.home != "/" {
			t.Errorf("%q: %+v %v", wanted, who, err)
		}
	}
}

func TestAnImageGivesItsCommandsUserDirectoryAndVariables(t *testing.T) {
	h := personalised(t)
	folder, err := os.MkdirTemp("/var/tmp", "image")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(folder) })
		err = os.Chmod(folder, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands as another user")
	}
	withImage(t, wire.Image{User: "4000:50", Workdir: folder, Env: map[string]string{"PATH": "/usr/bin:/bin", "APP": "image", "LEVEL": "image"}})
	e := h.finish(h.exec(map[string]any{
		"argv": []string{"sh", "-c", "id -u; id -g; pwd; echo $PATH $HOME $APP $LEVEL $USER"}, "user": "", "cwd": "", "env": map[string]string{"LEVEL": "request"},
	}))
	want := "4000\n50\n" + folder + "\n/usr/bin:/bin / image request\n"
	if string(e.stdout) != want {
		t.Errorf("%q, %q", e.stdout, e.stderr)
	}
	// A relative directory is below the image's.
	if err := os.Mkdir(filepath.Join(folder, "deeper"), 0o755); err != nil {
		t.Fatal(err)
	}
	if e := h.finish(h.exec(map[string]any{"argv": []string{"pwd"}, "user": "", "cwd": "deeper"})); string(e.stdout) != folder+"/deeper\n" {
		t.Errorf("%q %+v", e.stdout, e.Error)
	}
	if path, _ := absolutePath("file"); path != folder+"/file" {
		t.Error(path)
	}
}

func TestAnUnknownUserOfAnImageIsAnErrorThatSaysSo(t *testing.T) {
	h := personalised(t)
	withImage(t, wire.Image{User: "no-such-user"})
	e := h.finish(h.exec(map[string]any{"argv": []string{"true"}, "user": ""}))
	if e.Error == nil || e.Error.Reason != wire.NoUser || !strings.Contains(e.Error.Message, `image's own user "no-such-user"`) {
		t.Fatalf("%+v", e.Error)
	}
	if who := fileOwner(); who.uid != userNobody {
		t.Errorf("files would belong to %d", who.uid)
	}
}

func TestOfShellsThatNobodyMayUseTheNextIsTaken(t *testing.T) {
	for path, want := range map[string]bool{
		"/bin/sh": true, "/usr/sbin/nologin": false, "/bin/false": false, "": false, "sh": false, "/no/such/sh": false, "/etc/passwd": false,
	} {
		if isShell(path) != want {
			t.Errorf("%q", path)
		}
	}
}

func TestWhatAnImageHasInRunIsKeptWithinBounds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to another user")
	}
	source, target := t.TempDir(), t.TempDir()
	writeAll(t, source, map[string]string{"postgresql/.s.lock": "1", "big": strings.Repeat("x", runFileMax+1)})
	if err := os.Symlink("../gone", filepath.Join(source, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(source, "postgresql/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(source, "postgresql"), 999, 998); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(filepath.Join(source, "postgresql"), 0o3775); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(source, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder, err := syscall.Open(source, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(folder)
	budget := runBudget{entries: runEntriesMax, bytes: runBytesMax}
	if err := budget.copyFolder(folder, target); err != nil {
		t.Fatal(err)
	}
	var about syscall.Stat_t
	if err := syscall.Stat(filepath.Join(target, "postgresql"), &about); err != nil || about.Uid != 999 || about.Gid != 998 || about.Mode&0o7777 != 0o3775 {
		t.Errorf("%v %+v", err, about)
	}
	if contentOf(t, target, "postgresql/.s.lock") != "1" {
		t.Error("the file is missing")
	}
	names, _ := readNames(target)
	if len(names) != 2 {
		t.Errorf("%v", names)
	}
	few := runBudget{entries: 1, bytes: 0}
	if err := few.copyFolder(folder, t.TempDir()); err != nil || few.entries >= 0 {
		t.Errorf("%v %+v", err, few)
	}
}
