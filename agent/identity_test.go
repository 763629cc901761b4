// The files of an identity, mounted over those of a root that is made for the test.

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// inOwnMounts runs a test whose mounts nobody else sees.
func inOwnMounts(t *testing.T, test func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread keeps the mounts and ends with its goroutine.
		runtime.LockOSThread()
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			t.Errorf("no mounts of our own: %v", err)
			return
		}
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Errorf("no private mounts: %v", err)
			return
		}
		test()
	}()
	<-done
}

func TestAnIdentityIsWrittenToMemoryAndStoredOnRequest(t *testing.T) {
	root := testRoot(t, map[string]string{
		"etc/hostname": "image\n", "etc/hosts": "127.0.0.1 localhost\n10.0.0.9 db\n", "run/resolv.conf": "nameserver 9.9.9.9\n",
	})
	if err := os.Symlink("../run/resolv.conf", root+"/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(root, "etc")
	inOwnMounts(t, func() {
		p := &prepared{files: map[string]*keptFile{}}
		for _, name := range identityFiles {
			file := &keptFile{path: filepath.Join(etc, name), memory: -1, disk: -1}
			if err := file.mount(root + "/" + memoryFolder); err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			p.files[name] = file
		}
		for name, content := range map[string]string{hostnameFile: "a-longer-name\n", machineIDFile: "0123\n", resolverFile: "x\n"} {
			if err := p.files[name].write([]byte(content)); err != nil {
				t.Error(err)
			}
			if got := contentOf(t, etc, name); got != content {
				t.Errorf("%s: %q", name, got)
			}
		}
		hosts, err := p.files[hostsFile].read()
		if err != nil || string(hosts) != "127.0.0.1 localhost\n10.0.0.9 db\n" {
			t.Errorf("%q %v", hosts, err)
		}
		if err := p.files[hostsFile].write([]byte(hostsNaming(string(hosts), "dev"))); err != nil {
			t.Error(err)
		}
		// A user's additions are kept.
		if err := os.WriteFile(etc+"/hosts", []byte(contentOf(t, etc, "hosts")+"10.0.0.8 more\n"), 0o644); err != nil {
			t.Error(err)
		}
		for i := 0; i < 2; i++ {
			if err := p.store(); err != nil {
				t.Error(err)
			}
		}
		for _, file := range p.files {
			syscall.Close(file.memory)
			syscall.Close(file.disk)
		}
	})
	// Here, outside of those mounts, is the disk.
	for name, want := range map[string]string{
		"hostname": "a-longer-name\n", "machine-id": "0123\n", "resolv.conf": "x\n",
		"hosts": "127.0.0.1 localhost\n10.0.0.9 db\n127.0.1.1\tdev\n10.0.0.8 more\n",
	} {
		if got := contentOf(t, etc, name); got != want {
			t.Errorf("%s on the disk: %q", name, got)
		}
	}
	if content := contentOf(t, root, "run/resolv.conf"); content != "nameserver 9.9.9.9\n" {
		t.Errorf("the link's target is %q", content)
	}
}

func TestAFileThatWasUnmountedIsWrittenWhereProgramsSeeIt(t *testing.T) {
	root := testRoot(t, map[string]string{"etc/machine-id": ""})
	inOwnMounts(t, func() {
		file := &keptFile{path: root + "/etc/machine-id", memory: -1, disk: -1}
		must(t, file.mount(root+"/"+memoryFolder))
		defer syscall.Close(file.memory)
		defer syscall.Close(file.disk)
		must(t, file.write([]byte("source\n")))
		must(t, syscall.Unmount(file.path, 0))
		must(t, os.WriteFile(file.path, []byte("source\n"), 0o444))
		must(t, file.write([]byte("fork\n")))
		if content, err := file.read(); err != nil || string(content) != "fork\n" || contentOf(t, root, "etc/machine-id") != "fork\n" {
			t.Errorf("%q %v", content, err)
		}
		// The file in memory is stale and stays away from the disk.
		p := &prepared{files: map[string]*keptFile{machineIDFile: file}}
		must(t, os.WriteFile(file.path, []byte("own\n"), 0o444))
		must(t, p.store())
		if contentOf(t, root, "etc/machine-id") != "own\n" {
			t.Error("it was overwritten")
		}
	})
}

func TestWithoutAMountTheDiskIsWritten(t *testing.T) {
	root := testRoot(t, map[string]string{"etc/hostname": "image\n"})
	file := &keptFile{path: root + "/etc/hostname", memory: -1, disk: -1}
	if err := file.write([]byte("dev\n")); err != nil || contentOf(t, root, "etc/hostname") != "dev\n" {
		t.Errorf("%v", err)
	}
	if content, err := file.read(); err != nil || string(content) != "dev\n" {
		t.Errorf("%q %v", content, err)
	}
	missing := &keptFile{path: root + "/etc/hosts", memory: -1, disk: -1}
	if content, err := missing.read(); err != nil || len(content) != 0 {
		t.Errorf("%q %v", content, err)
	}
}
