import { connect } from "./gateway.js";

document.getElementById("endings").open = true;
connect();
