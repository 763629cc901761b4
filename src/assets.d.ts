/** Files that the build puts into the binary; importing one gives its path. */

declare module "*/lohar" {
  const path: string
  export default path
}

declare module "*/jail" {
  const path: string
  export default path
}

declare module "*.sh" {
  const text: string
  export default text
}
