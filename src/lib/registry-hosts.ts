/** Docker Hub has several names: one in references, others in the files of logins and in its own addresses. */

const dockerHub = "docker.io"
const hubNames = new Set([dockerHub, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"])

/** The key of Docker Hub in the files of `docker login`, and in credential helpers. */
export const hubServer = "https://index.docker.io/v1/"

export function isDockerHub(host: string): boolean {
  return hubNames.has(host)
}

/** The name of a registry in references, in lower case. */
export function registryHost(host: string): string {
  const lower = host.toLowerCase()
  return isDockerHub(lower) ? dockerHub : lower
}
