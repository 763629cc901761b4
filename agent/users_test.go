// The user and the small files, in roots that are made for the test.

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// testRoot is a guest's root with the given files.
func testRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func contentOf(t *testing.T, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestTheUserIsMadeOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to another user")
	}
	root := testRoot(t, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "etc/group": "root:x:0:", "etc/shadow": "root:*:1::::::\n",
		"etc/skel/.bashrc": "# hello\n", "bin/bash": "",
	})
	for i := 0; i < 2; i++ {
		if err := makeUser(root); err != nil {
			t.Fatal(err)
		}
		if err := makeWorkspace(root); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		"passwd":          "root:x:0:0:root:/root:/bin/bash\nlohar:x:1000:1000:lohar:/home/lohar:/bin/bash\n",
		"group":           "root:x:0:\nlohar:x:1000:\n",
		"shadow":          "root:*:1::::::\nlohar:*:19700:0:99999:7:::\n",
		"sudoers.d/lohar": sudoersRule,
	} {
		if got := contentOf(t, root, "etc", file); got != want {
			t.Errorf("%s: %q", file, got)
		}
	}
	if contentOf(t, root, "home/lohar/.bashrc") != "# hello\n" {
		t.Error("the skeleton is missing")
	}
	rule, err := os.Stat(filepath.Join(root, sudoersFile))
	if err != nil || rule.Mode().Perm() != 0o440 {
		t.Errorf("%v %v", rule, err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/gshadow")); !os.IsNotExist(err) {
		t.Errorf("gshadow was made: %v", err)
	}
}

func TestATakenIDIsNotShared(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to another user")
	}
	root := testRoot(t, map[string]string{
		"etc/passwd": "node:x:1000:1000::/home/node:/bin/bash", "etc/group": "node:x:1000:\nother:x:1001:\n",
	})
	if err := makeUser(root); err != nil {
		t.Fatal(err)
	}
	who, err := findAccount(filepath.Join(root, "etc"), "lohar")
	if err != nil || who.uid != 1002 || who.gid != 1002 || who.shell != "/bin/sh" {
		t.Errorf("%+v %v", who, err)
	}
}

func TestAccountsAreFoundByNameAndNumber(t *testing.T) {
	root := testRoot(t, map[string]string{
		"etc/passwd": "broken\nroot:x:0:0:root:/root:/bin/bash\nann:x:1001:1001:::\nhuge:x:99999999999:1:::\n",
		"etc/group":  "root:x:0:ann\nsudo:x:27:bob,ann\nann:x:1001:ann\nodd:x:x:ann\nvideo:x:44:bob\n",
	})
	want := account{name: "ann", uid: 1001, gid: 1001, groups: []uint32{1001, 0, 27}, home: "/", shell: "/bin/sh"}
	for _, wanted := range []string{"ann", "1001"} {
		got, err := findAccount(filepath.Join(root, "etc"), wanted)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v", wanted, got, err)
		}
	}
	for _, wanted := range []string{"bob", "huge", "", "1", "root:x"} {
		if got, err := findAccount(filepath.Join(root, "etc"), wanted); err == nil {
			t.Errorf("%s: %+v", wanted, got)
		}
	}
}

func TestSmallFilesAreKept(t *testing.T) {
	root := testRoot(t, map[string]string{"file": "a longer text\n"})
	path := filepath.Join(root, "file")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"short\n", "short\n", "a much longer text than before\n", ""} {
		if err := keepFile(path, []byte(content)); err != nil || contentOf(t, path) != content {
			t.Errorf("%q became %q, %v", content, contentOf(t, path), err)
		}
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("the file was replaced")
	}

	link := filepath.Join(root, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if err := keepFile(link, []byte("own\n")); err != nil || contentOf(t, link) != "own\n" || contentOf(t, path) != "" {
		t.Errorf("the link became %q, its target %q, %v", contentOf(t, link), contentOf(t, path), err)
	}
	if err := keepFile(filepath.Join(root, "fresh"), []byte("x")); err != nil || contentOf(t, root, "fresh") != "x" {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 3 {
		t.Errorf("something was left behind: %v", entries)
	}
}

func TestOnlyTheOwnLineOfHostsChanges(t *testing.T) {
	for _, c := range []struct{ before, after string }{
		{"", hostsDefault + "127.0.1.1\tdev\n"},
		{"127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1\tdev\n"},
		{"127.0.1.1\told\n10.0.0.9 mine # kept\n", "127.0.1.1\tdev\n10.0.0.9 mine # kept\n"},
		{"127.0.1.1 a\n\n# c\n127.0.1.1 b", "127.0.1.1\tdev\n\n# c\n"},
	} {
		got := hostsNaming(c.before, "dev")
		if got != c.after || hostsNaming(got, "dev") != got {
			t.Errorf("%q became %q", c.before, got)
		}
	}
	if got := hostsNaming(hostsNaming("", "first"), "second"); strings.Contains(got, "first") {
		t.Errorf("%q", got)
	}
}
