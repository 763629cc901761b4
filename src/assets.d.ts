/** Files that the build embeds in the binary; importing one returns its path. */

declare module "*/lohar" {
  const path: string
  export default path
}

declare module "*/jail" {
  const path: string
  export default path
}

declare module "*/zygote" {
  const path: string
  export default path
}

declare module "*/dist/unpack" {
  const path: string
  export default path
}

declare module "*.sh" {
  const text: string
  export default text
}

declare module "*.py" {
  const text: string
  export default text
}
