/**
 * Programs that must print the same in every sandbox, however its machine was started: nothing of the time, of a
 * process id or of chance. Each is a script of `sh`, which must succeed.
 */

/** By name. */
export type Programs = Record<string, string>

/** A C program: compiled in the guest, and run. `flags` are for the compiler. */
export function ofC(source: string, flags = "-O2"): string {
  return compiled({ compiler: "gcc", file: "p.c", source, flags })
}

export function ofCpp(source: string, flags = "-O1"): string {
  return compiled({ compiler: "g++", file: "p.cc", source, flags })
}

type Source = { compiler: string; file: string; source: string; flags: string }

function compiled({ compiler, file, source, flags }: Source): string {
  return `${written(file, source)}
${compiler} -w ${flags} -o p ${file} -lpthread -lm -ldl && ./p`
}

/** A script of an interpreter, from a file. */
export function ofFile(command: string, file: string, source: string): string {
  return `${written(file, source)}
${command} ${file}`
}

function written(file: string, source: string): string {
  return `cd $(mktemp -d) || exit 1
cat > ${file} <<'END OF SOURCE'
${source}
END OF SOURCE`
}
