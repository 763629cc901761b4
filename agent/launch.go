// Turns a request into everything the kernel needs to start it: user, directory, environment and file.

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"bhatti/agent/wire"
)

const (
	userDefault = "lohar"
	workspace   = "/workspace"
	// Below the home directory: programs that a user installs without root come first, as in Debian's login shells.
	ownPrograms      = ".local/bin"
	searchPath       = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	languageDefault  = "C.UTF-8"
	terminalDefault  = "xterm-256color"
	scriptOfNoFormat = "the kernel cannot run %q: it is not a program for this machine, and a script needs a #! line"
)

// launch is a request that has been checked.
type launch struct {
	account   account
	directory string
	env       environment
	program   string // as the caller named it
	path      string // the program's file
}

func prepareLaunch(request wire.Exec, sandboxEnv map[string]string) (launch, error) {
	if len(request.Argv) == 0 || request.Argv[0] == "" {
		return launch{}, wire.Errorf(wire.Invalid, "argv names no program").Because(wire.BadText)
	}
	if err := checkText(request); err != nil {
		return launch{}, err
	}
	who, err := launchAccount(request.User)
	if err != nil {
		return launch{}, err
	}
	directory, err := findDirectory(request.Cwd, who)
	if err != nil {
		return launch{}, err
	}
	env := mergeEnv(who, request, sandboxEnv)
	path, err := findProgram(request.Argv[0], directory, env.get("PATH"))
	if err != nil {
		return launch{}, err
	}
	return launch{account: who, directory: directory, env: env, program: request.Argv[0], path: path}, nil
}

// checkText refuses text that the kernel's calls cannot carry.
func checkText(request wire.Exec) error {
	for _, text := range append([]string{request.Cwd}, request.Argv...) {
		if strings.IndexByte(text, 0) >= 0 {
			return wire.Errorf(wire.Invalid, "an argument or the directory holds a zero byte").Because(wire.BadText)
		}
	}
	for name, value := range request.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.IndexByte(value, 0) >= 0 {
			return wire.Errorf(wire.Invalid, "%q cannot be an environment variable", name).Because(wire.BadText)
		}
	}
	return nil
}

func findDirectory(wanted string, who account) (string, error) {
	if !filepath.IsAbs(wanted) {
		wanted = filepath.Join(usualDirectory(who), wanted)
	}
	if isDirectory(wanted) {
		return wanted, nil
	}
	about, err := os.Stat(wanted)
	switch {
	case os.IsNotExist(err):
		return "", wire.Errorf(wire.Invalid, "no directory %q", wanted).Because(wire.NoDirectory)
	case err != nil:
		return "", wire.Errorf(wire.Invalid, "directory %q: %v", wanted, err).Because(wire.NoDirectory)
	case !about.IsDir():
		return "", wire.Errorf(wire.Invalid, "%q is not a directory", wanted).Because(wire.NoDirectory)
	}
	return wanted, nil
}

func usualDirectory(who account) string {
	if image := theImage.Load(); image != nil {
		return workdirOf(image)
	}
	for _, candidate := range []string{workspace, who.home} {
		if isDirectory(candidate) {
			return candidate
		}
	}
	return "/"
}

func isDirectory(path string) bool {
	var about syscall.Stat_t
	return syscall.Stat(path, &about) == nil && about.Mode&syscall.S_IFMT == syscall.S_IFDIR
}

// environment is a list of NAME=value without duplicate names. It is short, so a linear search is fast enough.
type environment []string

func (e environment) find(name string) int {
	for i, variable := range e {
		if len(variable) > len(name) && variable[len(name)] == '=' && variable[:len(name)] == name {
			return i
		}
	}
	return -1
}

func (e environment) get(name string) string {
	if i := e.find(name); i >= 0 {
		return e[i][len(name)+1:]
	}
	return ""
}

func (e *environment) set(name, value string) {
	variable := name + "=" + value
	if i := e.find(name); i >= 0 {
		(*e)[i] = variable
		return
	}
	*e = append(*e, variable)
}

// mergeEnv overlays the sandbox's environment on the login's, and the request's on both.
func mergeEnv(who account, request wire.Exec, sandboxEnv map[string]string) environment {
	env := loginEnv(who, request)
	if request.Terminal != nil {
		term := request.Terminal.Term
		if term == "" {
			term = terminalDefault
		}
		env.set("TERM", term)
	}
	for name, value := range sandboxEnv {
		env.set(name, value)
	}
	for name, value := range request.Env {
		env.set(name, value)
	}
	return env
}

func loginEnv(who account, request wire.Exec) environment {
	if image := theImage.Load(); image != nil {
		return imageEnv(image, who, request)
	}
	return environment{
		"HOME=" + who.home, "USER=" + who.name, "LOGNAME=" + who.name, "SHELL=" + who.shell,
		"PATH=" + who.home + "/" + ownPrograms + ":" + searchPath, "LANG=" + languageDefault,
	}
}

// findProgram resolves a name as a shell would, with the PATH that the command will have.
func findProgram(name, directory, searchPath string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(directory, path)
		}
		return path, checkProgram(name, path)
	}
	var refusal error
	for isMore := searchPath != ""; isMore; {
		var folder string
		folder, searchPath, isMore = strings.Cut(searchPath, ":")
		if !filepath.IsAbs(folder) {
			folder = directory + "/" + folder
		}
		path := folder + "/" + name
		if syscall.Access(path, 0) == syscall.ENOENT {
			continue
		}
		err := checkProgram(name, path)
		if err == nil {
			return path, nil
		}
		if coded := asError(err); coded.Code != wire.NotFound && refusal == nil {
			refusal = err
		}
	}
	if refusal != nil {
		return "", refusal
	}
	return "", wire.Errorf(wire.NotFound, "no program %q in PATH", name).Because(wire.NoProgram)
}

func checkProgram(name, path string) error {
	var found syscall.Stat_t
	if syscall.Stat(path, &found) == nil && found.Mode&syscall.S_IFMT == syscall.S_IFREG && found.Mode&0o111 != 0 {
		return nil
	}
	about, err := os.Stat(path)
	switch {
	case os.IsNotExist(err), err == nil && about.IsDir() && !strings.Contains(name, "/"):
		return wire.Errorf(wire.NotFound, "no program %q", name).Because(wire.NoProgram)
	case err != nil:
		return wire.Errorf(wire.NotFound, "no program %q: %v", name, err).Because(wire.NoProgram)
	case about.IsDir():
		return wire.Errorf(wire.Invalid, "%q is a directory", name).Because(wire.NotExecutable)
	case about.Mode()&0o111 == 0:
		return wire.Errorf(wire.Invalid, "%q is not executable", name).Because(wire.NotExecutable)
	}
	return nil
}

// explain describes the kernel's error. Errors that remain after prepareLaunch are rare.
func (l launch) explain(err error) error {
	switch err {
	case syscall.ENOENT:
		return wire.Errorf(wire.NotFound, "the interpreter or loader that %q asks for is missing", l.program).
			Because(wire.NoInterpreter)
	case syscall.ENOEXEC:
		return wire.Errorf(wire.Invalid, scriptOfNoFormat, l.program).Because(wire.WrongFormat)
	case syscall.EACCES, syscall.EPERM:
		return wire.Errorf(wire.Invalid, "user %q may not run %q in %q", l.account.name, l.program, l.directory).
			Because(wire.Denied)
	case syscall.E2BIG:
		return wire.Errorf(wire.Invalid, "the arguments and the environment of %q are too long", l.program).
			Because(wire.TooLong)
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		return wire.Errorf(wire.LimitExceeded, "start %q: %v", l.program, err).Because(wire.NoResources)
	}
	return wire.Errorf(wire.Invalid, "start %q: %v", l.program, err).Because(wire.NotStarted)
}
