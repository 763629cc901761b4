// The image's own configuration: the user, the directory and the variables of its commands. Images of our own have
// none; their commands run as lohar in /workspace.

package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"bhatti/agent/wire"
)

const (
	userNobody     = 65534
	kitShell       = kitFolder + "/bin/sh"
	kitApplets     = kitFolder + "/applets"
	kitShellNotice = "echo 'This image has no shell. This is the sh of busybox, from the host; its programs are in " +
		kitApplets + ".'; exec " + kitShell
)

// theImage is nil for an image of our own.
var theImage atomic.Pointer[wire.Image]

func defaultUser() string {
	image := theImage.Load()
	switch {
	case image == nil:
		return userDefault
	case image.User == "":
		return "0"
	}
	return image.User
}

// workdirOf is where commands of an image start.
func workdirOf(image *wire.Image) string { return filepath.Join("/", image.Workdir) }

// completeRoot makes what commands need: the user lohar and the workspace in an image of our own, the working directory
// in one of others, which is otherwise left as it is.
func (p *prepared) completeRoot(image *wire.Image) error {
	if image != nil {
		if path := workdirOf(image); !isDirectory(path) {
			if err := os.MkdirAll(path, 0o755); err != nil {
				report("working directory: %v", err) // Commands fail with a better error, unless they name another.
			}
		}
		return nil
	}
	if p.isComplete {
		return nil
	}
	if err := makeUser("/"); err != nil {
		return err
	}
	if err := makeWorkspace("/"); err != nil {
		report("workspace: %v", err)
	}
	p.isComplete = true
	return nil
}

// commandAccount looks USER or USER:GROUP up as container runtimes do: ids need no entry, and root never does.
func commandAccount(directory, wanted string) (account, error) {
	user, group, hasGroup := strings.Cut(wanted, ":")
	if user == "" {
		user = "0"
	}
	who, err := findAccount(directory, user)
	if err != nil {
		number, isNumber := parseID(user)
		if !isNumber && user != "root" {
			return account{}, err
		}
		who = account{name: user, uid: number, groups: []uint32{0}, home: "/", isNameless: true}
	}
	if !hasGroup {
		return who, nil
	}
	id, isKnown := groupID(filepath.Join(directory, "group"), group)
	if !isKnown {
		if id, isKnown = parseID(group); !isKnown {
			return account{}, wire.Errorf(wire.Invalid, "no group %q", group).Because(wire.NoUser)
		}
	}
	who.gid, who.groups = id, []uint32{id}
	return who, nil
}

// launchAccount is the user of a command.
func launchAccount(wanted string) (account, error) {
	if wanted != "" {
		return commandAccount("/etc", wanted)
	}
	who, err := commandAccount("/etc", defaultUser())
	if err != nil && theImage.Load() != nil {
		return who, wire.Errorf(wire.Invalid, "the image's own user %q is not in its /etc/passwd or /etc/group", defaultUser()).
			Because(wire.NoUser)
	}
	return who, err
}

// loginCommand is the user's shell. In an image of others it does not read /etc/profile, which replaces the image's
// PATH.
func loginCommand(user string) ([]string, error) {
	who, err := launchAccount(user)
	if err != nil {
		return nil, err
	}
	if theImage.Load() == nil && !who.isNameless {
		return []string{who.shell, "-l"}, nil
	}
	for _, shell := range []string{who.shell, "/bin/bash", "/bin/sh"} {
		if isShell(shell) {
			return []string{shell}, nil
		}
	}
	return []string{kitShell, "-c", kitShellNotice}, nil
}

// isShell refuses what passwd has for users who may not log in.
func isShell(path string) bool {
	switch filepath.Base(path) {
	case ".", "nologin", "false", "true", "sync", "shutdown", "halt":
		return false
	}
	return filepath.IsAbs(path) && checkProgram(path, path) == nil
}

// imageEnv is the environment of a command in an image of others, before the sandbox's and the request's.
func imageEnv(image *wire.Image, who account, request wire.Exec) environment {
	env := environment{"HOME=" + who.home, "PATH=" + searchPath}
	for name, value := range image.Env {
		env.set(name, value)
	}
	if len(request.Argv) > 0 && request.Argv[0] == kitShell {
		env.set("PATH", env.get("PATH")+":"+kitApplets)
	}
	return env
}

// keepRun mounts a file system in memory at /run and copies what the image has there: programs rely on directories of
// their own in /run, and a boot starts without the files of the one before.
func keepRun(path string) error {
	if err := ensureDirectory(path); err != nil {
		return err
	}
	below, err := syscall.Open(path, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(below)
	if err := syscall.Mount("tmpfs", path, "tmpfs", noSetuid|noDevices, "mode=0755"); err != nil {
		return err
	}
	budget := runBudget{entries: runEntriesMax, bytes: runBytesMax}
	return budget.copyFolder(below, path)
}

// ensureDirectory replaces anything but a directory, or a link to one.
func ensureDirectory(path string) error {
	if isDirectory(path) {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.MkdirAll(path, 0o755)
}
