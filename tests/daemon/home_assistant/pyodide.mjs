// Runs a Python program in Pyodide: node pyodide.mjs PYODIDE PROGRAM FOLDER. It finds FOLDER as /host.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodide, program, folder] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodide}/pyodide.mjs`));
const python = await loadPyodide({ indexURL: `${pyodide}/` });
python.FS.mkdirTree("/host");
python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, "/host");
try {
    await python.runPythonAsync(readFileSync(program, "utf8"));
} catch (error) {
    console.error(String(error));
    process.exit(1);
}
