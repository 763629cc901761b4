// The root directory of QEMU, and that of a zygote, from which its children make such a root for themselves.

package main

import (
	"os"
	"path/filepath"
	"syscall"
)

const closed = syscall.MS_NOSUID | syscall.MS_NODEV

func (all *steps) mount(source, target, kind string, flags int, options string) {
	all.add("mount "+target, syscall.SYS_MOUNT, source, target, kind, flags, options)
}

// mountReadOnly shows a directory of the host at another place, or at its own as a mount.
func (all *steps) mountReadOnly(source, target string) {
	all.mount(source, target, "", syscall.MS_BIND, "")
	all.mount("none", target, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY|closed, "")
}

func (all *steps) enterRoot(wanted order) {
	inRoot := func(path string) string { return filepath.Join(wanted.root, path) }
	// Keeps mounts here invisible outside, and outside mounts invisible here.
	all.mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	all.mountReadOnly(wanted.root, wanted.root)
	for _, device := range wanted.ownDevices {
		all.makeDevice(device, wanted.uid, inRoot)
	}
	// Shows its own pid namespace, and only processes.
	all.mount("proc", inRoot("proc"), "proc", closed|syscall.MS_NOEXEC, "subset=pid")
	for _, device := range wanted.devices {
		all.mount(device, inRoot(device), "", syscall.MS_BIND, "")
	}
	all.changeRoot(wanted.root)
}

// enterZygoteRoot makes a root in memory that shows the directories of wanted.root, and in child the whole of it.
// A child without rights of ours may not take a mount apart that it has inherited, only one that contains nothing
// but what it keeps.
func (all *steps) enterZygoteRoot(wanted order) error {
	entries, err := os.ReadDir(wanted.root)
	if err != nil {
		return err
	}
	root := filepath.Join(wanted.root, "proc")
	inRoot := func(path string) string { return filepath.Join(root, path) }
	makeDirectory := func(target string) { all.add("make "+target, syscall.SYS_MKDIR, target, 0o755) }
	all.mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	all.mount("tmpfs", root, "tmpfs", closed|syscall.MS_NOEXEC, "mode=0755,size=64k")
	for _, entry := range entries {
		source, target := filepath.Join(wanted.root, entry.Name()), inRoot(entry.Name())
		makeDirectory(target)
		if source != root {
			all.mountReadOnly(source, target)
		}
	}
	makeDirectory(inRoot("child"))
	all.mountReadOnly(wanted.root, inRoot("child"))
	for _, device := range wanted.devices {
		all.mount(device, inRoot(device), "", syscall.MS_BIND, "")
		all.mount(device, inRoot(filepath.Join("child", device)), "", syscall.MS_BIND, "")
	}
	// It is in the host's pid namespace, and sees the processes of its own user.
	all.mount("proc", inRoot("proc"), "proc", closed|syscall.MS_NOEXEC, "subset=pid,hidepid=ptraceable")
	all.mount("none", root, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY|closed|syscall.MS_NOEXEC, "")
	all.changeRoot(root)
	return nil
}

func (all *steps) changeRoot(root string) {
	all.add("enter "+root, syscall.SYS_CHDIR, root)
	// The former root is mounted over the new one and then unmounted.
	all.add("change the root", syscall.SYS_PIVOT_ROOT, ".", ".")
	all.add("leave the host's root", syscall.SYS_UMOUNT2, ".", syscall.MNT_DETACH)
	all.add("go to the root", syscall.SYS_CHDIR, "/")
	const name = "machine"
	all.add("name its host", syscall.SYS_SETHOSTNAME, name, len(name))
}
