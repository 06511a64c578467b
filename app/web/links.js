// Links between pages of the board. Streamlit's own write the old page's address without its settings into the browser's
// history before they write the new page's, so that Back does not return to the page as it was. Here the address changes
// once, and Streamlit follows as it follows Back and Forward. Links also lead into the project that the page shows, keep
// a page embedded that is, and close a sidebar that lies over the page.
//
// Streamlit follows late: what the server says of the page before may arrive after a link was clicked. Streamlit then
// writes that page's path back, as one more entry, or that page's settings behind the new page's path. So once a link
// (or Back) has opened a page, what Streamlit writes counts only for the page that it shows; settings that came too late
// are put where they belong when Back returns there. What opens a page calls History's own functions.
(() => {
  const board = new URL("./", location.href);
  const KEPT = ["project", "embed", "embed_options"]; // settings of all pages
  const NARROW = 768; // pixels below which Streamlit lays the sidebar over the page

  const pageLink = (event) => {
    const link = event.composedPath().find((node) => node instanceof HTMLAnchorElement);
    if (!link || link.origin !== board.origin || link.hasAttribute("disabled")) return null;
    if (!link.pathname.startsWith(board.pathname) || link.getAttribute("href").startsWith("#")) return null;
    return /^\w*$/.test(link.pathname.slice(board.pathname.length)) ? link : null;
  };

  const keepSettings = (event) => {
    const link = pageLink(event);
    if (!link) return null;
    const target = new URL(link.href);
    const now = new URLSearchParams(location.search);
    for (const name of KEPT.filter((name) => !target.searchParams.has(name)))
      for (const value of now.getAll(name)) target.searchParams.append(name, value);
    if (target.href !== link.href) link.href = target;
    return link;
  };

  const closeSidebar = () => {
    const button = document.querySelector('[data-testid="stSidebarCollapseButton"] button');
    if (button && innerWidth < NARROW) button.click();
  };

  const open = (event) => {
    const link = keepSettings(event);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.target && link.target !== "_self") return;
    const isInSidebar = link.dataset.testid === "stSidebarNavLink";
    if (isInSidebar) closeSidebar();
    if (isInSidebar && link.pathname === location.pathname) return; // Streamlit runs the page again as it is set
    event.preventDefault();
    event.stopPropagation();
    left = location.href;
    if (link.href !== left) History.prototype.pushState.call(history, {}, "", link.href);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  let led = false; // whether a page was opened in the browser
  let left = null; // the address from which the last link led away
  let late = null; // that address, with the settings that it should have had

  const shown = () => {
    const link = document.querySelector('[data-testid="stSidebarNavLink"][aria-current="page"]');
    return link ? link.pathname : location.pathname; // no link leads to the page of a run
  };

  const write = (name) => (state, unused, address) => {
    const target = new URL(address ?? "", location.href);
    const isOfThisPage = target.pathname === location.pathname;
    if (!led || (isOfThisPage && shown() === location.pathname)) {
      History.prototype[name].call(history, state, unused, address);
    } else if (isOfThisPage) {
      if (left && new URL(left).pathname === shown()) late = { left, address: shown() + target.search };
      setTimeout(() => dispatchEvent(new PopStateEvent("popstate"))); // Streamlit took the settings for this page's
    }
  };
  history.pushState = write("pushState");
  history.replaceState = write("replaceState");

  const follow = () => {
    led = true;
    if (late && location.href === late.left) {
      History.prototype.replaceState.call(history, {}, "", late.address);
      late = null;
    }
  };

  addEventListener("popstate", follow, true); // of Back, of the links here and of redirect.py
  addEventListener("pointerdown", keepSettings, true);
  addEventListener("click", open, true);
})();
