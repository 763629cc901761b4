/** `bhatti completion`. */

import { hostCommand } from "../command.ts"
import { WrongUsage } from "../wrong-usage.ts"

/**
 * Each script calls `bhatti __complete` with the words up to the cursor. A candidate that ends in a colon gets no
 * space, since it continues. Local files are offered only to the commands that take some.
 */
const scripts: Record<string, string> = {
  bash: `_bhatti() {
  local current=\${COMP_WORDS[COMP_CWORD]} line=\${COMP_LINE:0:COMP_POINT} words candidate
  # Bash takes a colon for the end of a word, which it is not here.
  read -ra words <<<"$line"
  [[ $line = *[[:space:]] ]] && words+=("")
  local typed=\${words[-1]} before=
  [[ $typed = *:* && $COMP_WORDBREAKS = *:* ]] && before=\${typed%"\${typed##*:}"}
  COMPREPLY=()
  while IFS= read -r candidate; do
    [[ $candidate = *: ]] && compopt -o nospace
    COMPREPLY+=("\${candidate#"$before"}")
  done < <(bhatti __complete -- "\${words[@]:1}" 2>/dev/null)
  # With nothing to offer, readline completes file names.
  [[ \${words[1]} = @(cp|file|create) ]] && compopt -o default
  if [[ \${words[1]} = cp && $typed != *:* ]]; then
    while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$current")
  fi
}
complete -F _bhatti bhatti`,
  zsh: `#compdef bhatti
_bhatti() {
  local -a candidates
  candidates=(\${(f)"$(bhatti __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)"})
  (( $#candidates )) && compadd -S '' -- \${(M)candidates:#*:}
  (( $#candidates )) && compadd -- \${candidates:#*:}
  if [[ $words[2] = cp || ( $words[2] = (file|create) && $#candidates -eq 0 ) ]]; then _files; fi
}
if [[ $funcstack[1] = _bhatti ]]; then _bhatti "$@"; else compdef _bhatti bhatti; fi`,
  fish: `function __bhatti_complete
    set -l words (commandline -opc) (commandline -ct)
    bhatti __complete -- $words[2..] 2>/dev/null
end
complete -c bhatti -f -a '(__bhatti_complete)'
complete -c bhatti -n '__fish_seen_subcommand_from cp file create' -F`,
}

export const completion = hostCommand({
  args: ["shell"],
  description: `SHELL is bash, zsh or fish. Commands, options and the names of your sandboxes are completed.

bash: bhatti completion bash > /etc/bash_completion.d/bhatti, or in ~/.bashrc: source <(bhatti completion bash)
zsh:  in ~/.zshrc, after compinit: source <(bhatti completion zsh)
fish: bhatti completion fish > ~/.config/fish/completions/bhatti.fish`,
  refuse: ({ args }) =>
    scripts[args.shell] === undefined ? `SHELL is one of ${Object.keys(scripts).join(", ")}` : undefined,
  examples: ["bhatti completion bash"],
  async run({ args, out }) {
    const script = scripts[args.shell]
    if (script === undefined) throw new WrongUsage(`no completion for ${args.shell}`)
    await out.result(script)
  },
})
