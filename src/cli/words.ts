/** Numbers and times as people read them. */

export function cpusText(cpus: number): string {
  return cpus === 1 ? "1 cpu" : `${cpus} cpus`
}

export function secondsText(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`
}

export function sizeText(mib: number): string {
  return mib >= 1024 && mib % 1024 === 0 ? `${mib / 1024} GB` : `${mib} MB`
}

export function ageText(since: string, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(since)) / 1000))
  if (seconds < 60) return `${seconds} s ago`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ago`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours} h ago`
  return `${Math.floor(hours / 24)} days ago`
}
