// jail starts one program, QEMU, isolated from the host, prints its pid as the caller sees it, and exits. QEMU is
// then a child of init and the first process of a pid namespace, unless it is to be forked. If anything fails, no
// program is started, and standard output has the reason instead of a pid.
//
// steps.go and root.go list the restrictions, fork.go applies them.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// An order to start a program.
type order struct {
	// root is the directory that becomes QEMU's root; if empty, there are no namespaces and the host's root stays.
	root string
	// zygote: QEMU will fork machines, which have to outlive it. So it stays in the caller's pid namespace, and its
	// root has what its children make theirs of.
	zygote bool
	// devices are device nodes of the host that are visible in root.
	devices []string
	// ownDevices are device nodes of the host that root gets a copy of, owned by QEMU's user, because the host's
	// node is closed to it.
	ownDevices []ownDevice
	// uid is QEMU's user and group; -1 if the caller may not change it and keeps its own.
	uid int
	// alone: fail while another process has that user.
	alone  bool
	groups []uint32
	// handed is the number of descriptors from 3 on that QEMU inherits.
	handed int
	// fileBytes is the maximum length of any file that QEMU writes to.
	fileBytes uint64
	cgroup    string
	niceness  int
	command   []string
}

type ownDevice struct {
	path   string
	number int
}

func main() {
	wanted, err := parse(os.Args[1:])
	var pid int
	if err == nil {
		pid, err = start(wanted)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(pid)
}

func parse(arguments []string) (order, error) {
	var wanted order
	flags := flag.NewFlagSet("jail", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&wanted.root, "root", "", "")
	flags.StringVar(&wanted.cgroup, "cgroup", "", "")
	flags.IntVar(&wanted.uid, "uid", -1, "")
	flags.BoolVar(&wanted.alone, "alone", false, "")
	flags.BoolVar(&wanted.zygote, "zygote", false, "")
	flags.IntVar(&wanted.handed, "handed", 0, "")
	flags.Uint64Var(&wanted.fileBytes, "file-bytes", 0, "")
	flags.IntVar(&wanted.niceness, "nice", 0, "")
	flags.Func("device", "", func(path string) error {
		wanted.devices = append(wanted.devices, path)
		return nil
	})
	flags.Func("own-device", "", func(path string) error {
		var found syscall.Stat_t
		if err := syscall.Stat(path, &found); err != nil {
			return err
		}
		wanted.ownDevices = append(wanted.ownDevices, ownDevice{path, int(found.Rdev)})
		return nil
	})
	flags.Func("group", "", func(text string) error {
		id, err := strconv.ParseUint(text, 10, 32)
		wanted.groups = append(wanted.groups, uint32(id))
		return err
	})
	if err := flags.Parse(arguments); err != nil {
		return wanted, err
	}
	wanted.command = flags.Args()
	if len(wanted.command) == 0 || !strings.HasPrefix(wanted.command[0], "/") {
		return wanted, fmt.Errorf("the program's whole path is missing")
	}
	if wanted.zygote && (wanted.root == "" || wanted.uid <= 0 || os.Geteuid() != 0) {
		return wanted, fmt.Errorf("machines are forked only where they have a root and a user of their own")
	}
	return wanted, nil
}
