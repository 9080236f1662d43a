import { mount } from "../shared/mount.js";
import "./admin.css";
import { createApi, takeToken } from "./api.js";
import { Page } from "./page.js";

mount(<Page api={createApi(takeToken(window))} />);
