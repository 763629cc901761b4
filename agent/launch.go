// From a request to what the kernel needs to start it: which user, which directory, which environment, which file.

package main

import (
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"bhatti/agent/wire"
)

const (
	userDefault      = "lohar"
	workspace        = "/workspace"
	searchPath       = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	languageDefault  = "C.UTF-8"
	terminalDefault  = "xterm-256color"
	scriptOfNoFormat = "the kernel cannot run %q: it is no program for this machine, and a script needs a #! line"
)

// launch is a request that was found to be possible.
type launch struct {
	account   account
	directory string
	env       []string
	program   string // as the caller named it
	path      string // the file
}

func prepareLaunch(request wire.Exec, sandboxEnv map[string]string) (launch, error) {
	if len(request.Argv) == 0 || request.Argv[0] == "" {
		return launch{}, wire.Errorf(wire.Invalid, "argv names no program")
	}
	if err := checkText(request); err != nil {
		return launch{}, err
	}
	name := request.User
	if name == "" {
		name = userDefault
	}
	who, err := findAccount("/etc", name)
	if err != nil {
		return launch{}, err
	}
	directory, err := findDirectory(request.Cwd, who)
	if err != nil {
		return launch{}, err
	}
	env := mergeEnv(who, request, sandboxEnv)
	path, err := findProgram(request.Argv[0], directory, env["PATH"])
	if err != nil {
		return launch{}, err
	}
	return launch{account: who, directory: directory, env: envList(env), program: request.Argv[0], path: path}, nil
}

// checkText refuses what the kernel's calls cannot carry.
func checkText(request wire.Exec) error {
	for _, text := range append([]string{request.Cwd}, request.Argv...) {
		if strings.IndexByte(text, 0) >= 0 {
			return wire.Errorf(wire.Invalid, "an argument or the directory holds a zero byte")
		}
	}
	for name, value := range request.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.IndexByte(value, 0) >= 0 {
			return wire.Errorf(wire.Invalid, "%q cannot be an environment variable", name)
		}
	}
	return nil
}

func findDirectory(wanted string, who account) (string, error) {
	if wanted == "" {
		for _, candidate := range []string{workspace, who.home} {
			if isDirectory(candidate) {
				return candidate, nil
			}
		}
		return "/", nil
	}
	if !filepath.IsAbs(wanted) {
		wanted = filepath.Join(who.home, wanted)
	}
	about, err := os.Stat(wanted)
	switch {
	case os.IsNotExist(err):
		return "", wire.Errorf(wire.NotFound, "no directory %q", wanted)
	case err != nil:
		return "", wire.Errorf(wire.Invalid, "directory %q: %v", wanted, err)
	case !about.IsDir():
		return "", wire.Errorf(wire.Invalid, "%q is no directory", wanted)
	}
	return wanted, nil
}

func isDirectory(path string) bool {
	about, err := os.Stat(path)
	return err == nil && about.IsDir()
}

// mergeEnv lays the sandbox's environment over the login's, and the request's over both.
func mergeEnv(who account, request wire.Exec, sandboxEnv map[string]string) map[string]string {
	env := map[string]string{
		"HOME": who.home, "USER": who.name, "LOGNAME": who.name, "SHELL": who.shell,
		"PATH": searchPath, "LANG": languageDefault,
	}
	if request.Terminal != nil {
		env["TERM"] = request.Terminal.Term
		if request.Terminal.Term == "" {
			env["TERM"] = terminalDefault
		}
	}
	for name, value := range sandboxEnv {
		env[name] = value
	}
	for name, value := range request.Env {
		env[name] = value
	}
	return env
}

func envList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	sort.Strings(list)
	return list
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
	for _, folder := range filepath.SplitList(searchPath) {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(directory, folder)
		}
		path := filepath.Join(folder, name)
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
	return "", wire.Errorf(wire.NotFound, "no program %q in PATH", name)
}

func checkProgram(name, path string) error {
	about, err := os.Stat(path)
	switch {
	case os.IsNotExist(err), err == nil && about.IsDir() && !strings.Contains(name, "/"):
		return wire.Errorf(wire.NotFound, "no program %q", name)
	case err != nil:
		return wire.Errorf(wire.NotFound, "no program %q: %v", name, err)
	case about.IsDir():
		return wire.Errorf(wire.Invalid, "%q is a directory", name)
	case about.Mode()&0o111 == 0:
		return wire.Errorf(wire.Invalid, "%q is not executable", name)
	}
	return nil
}

// explain names what the kernel refused. The errors that remain after prepareLaunch are the rarer ones.
func (l launch) explain(err error) error {
	switch err {
	case syscall.ENOENT:
		return wire.Errorf(wire.NotFound, "the interpreter or loader that %q asks for is missing", l.program)
	case syscall.ENOEXEC:
		return wire.Errorf(wire.Invalid, scriptOfNoFormat, l.program)
	case syscall.EACCES:
		return wire.Errorf(wire.Invalid, "user %q may not run %q in %q", l.account.name, l.program, l.directory)
	case syscall.E2BIG:
		return wire.Errorf(wire.Invalid, "the arguments and the environment of %q are too long", l.program)
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		return wire.Errorf(wire.LimitExceeded, "start %q: %v", l.program, err)
	}
	return wire.Errorf(wire.Invalid, "start %q: %v", l.program, err)
}
