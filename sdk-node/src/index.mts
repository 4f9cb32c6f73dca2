/** The same package for `import`: one instance of it, however it is loaded. */
export * from './index.js';
