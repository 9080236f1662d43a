import { Brand, ThemeToggle } from "../shared/controls.js";
import { mount } from "../shared/mount.js";
import { Empty } from "../shared/states.js";

mount(
  <>
    <header className="bar">
      <Brand />
      <ThemeToggle />
    </header>
    <main className="page">
      <h1>Operator</h1>
      <Empty title="Nothing is shown here yet" />
    </main>
  </>,
);
