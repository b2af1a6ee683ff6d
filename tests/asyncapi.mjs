// Say what is wrong with an AsyncAPI document, as the official parser has it, and with its examples: nothing, if all is well.
// Usage: node asyncapi.mjs FILE…

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";
import addFormats from "ajv-formats";

for (const file of process.argv.slice(2)) {
  const text = readFileSync(file, "utf8");
  const { document, diagnostics } = await new Parser().parse(text);
  for (const { code, path, message } of diagnostics) console.log(file, code, path.join("/"), message);
  if (!document) console.log(file, "is no document");
  const ajv = addFormats(new Ajv({ strict: false }));
  ajv.addSchema(JSON.parse(text), "document"); // where the references of the payloads lead
  for (const [path, channel] of Object.entries(JSON.parse(text).channels)) {
    for (const [name, { payload, examples }] of Object.entries(channel.messages)) {
      const schema = "$ref" in payload ? { $ref: `document${payload.$ref}` } : payload;
      if (!examples?.length) console.log(file, path, name, "has no example");
      for (const example of examples ?? []) {
        if (!ajv.validate(schema, example.payload)) console.log(file, path, name, ajv.errorsText());
      }
    }
  }
}
