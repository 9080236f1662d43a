import { App } from "./app.js";
import { mount } from "./shared/mount.js";

mount(<App />);
